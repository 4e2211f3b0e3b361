package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// claim is a job in the hands of this executor.
type claim struct {
	ex      *Executor
	flow    *Bound
	job     Job
	fence   int64
	params  json.RawMessage
	outputs map[string]json.RawMessage
	log     *slog.Logger

	// journal, by position; nil where there is no entry
	journal []*entry
	// unwind is why the job unwinds; nil while it goes forward
	unwind *errs.Error
	wakes  int64
	// accepting is the transaction that accepts the job while its head runs in it,
	// and seen what that has read; nil from then on
	accepting pgx.Tx
	seen      any
	// kept by a step, for those that follow
	kept any
	// born here, by Accept; begun says that the step at pos is in the journal already
	born, begun bool
	// progress as last written, of the whole job
	progress int
	// pos is the step under way
	pos int
	// parent is the life of the claim; the context of a step ends also when
	// somebody asks to cancel
	parent      context.Context
	endStep     context.CancelCauseFunc
	cancellable atomic.Bool
}

// entry is a step's line in the journal.
type entry struct {
	state    query.StepState
	failures int
}

// errCancelAsked is the cause of a step's context that ends because somebody
// asked to cancel the job.
var errCancelAsked = errors.New("workflow: somebody asked to cancel the job")

// mostPerRound bounds one claiming statement.
const mostPerRound = 100

// round looks for work once.
func (e *Executor) round(root context.Context, polled bool) {
	bound, cancel := e.opts.Members.Bind(root)
	defer cancel()
	if bound.Err() != nil {
		return // not a member now: nothing may be claimed
	}
	err := e.look(bound, root, polled)
	if err != nil && !e.sick && bound.Err() == nil {
		e.opts.Log.Warn("cannot look for jobs", "error", err)
	}
	e.sick = err != nil
}

func (e *Executor) look(ctx, root context.Context, polled bool) error {
	q := query.New(e.opts.Pool)
	if polled {
		holders, err := q.Holders(ctx, e.opts.Members.ID())
		if err != nil {
			return fmt.Errorf("read who holds jobs: %w", pgtx.Map(err))
		}
		e.holders = holders
	}
	if err := e.lookForCancels(ctx, q); err != nil {
		return err
	}
	for {
		active, claimed := e.activeIDs()
		free := min(e.opts.Workers-claimed, mostPerRound)
		if free <= 0 {
			return nil
		}
		n, err := e.claim(ctx, root, q, active, free)
		if err != nil || n < free {
			return err
		}
	}
}

func (e *Executor) claim(ctx, root context.Context, q *query.Queries, active []id.ID, free int) (int, error) {
	rows, err := q.ClaimJobs(ctx, query.ClaimJobsParams{
		Kinds: e.kinds, Dead: e.dead(), Me: e.opts.Members.ID(), Active: active, Most: int32(free),
	})
	if err != nil {
		return 0, fmt.Errorf("claim jobs: %w", pgtx.Map(err))
	}
	if len(rows) == 0 {
		return 0, nil
	}
	e.opts.Committed()
	journals, err := e.journals(ctx, q, rows)
	if err != nil {
		// claimed and not driven: the next round takes them again
		return 0, err
	}
	for _, r := range rows {
		e.start(root, e.newClaim(r, journals[r.ID]))
	}
	return len(rows), nil
}

func (e *Executor) dead() []id.ID {
	dead := []id.ID{}
	for _, h := range e.holders {
		if e.opts.Members.Dead(h) {
			dead = append(dead, h)
		}
	}
	return dead
}

// journals reads what earlier claims left; a job claimed for the first time has
// none.
func (e *Executor) journals(ctx context.Context, q *query.Queries, rows []query.ClaimJobsRow) (map[id.ID][]query.JobStep, error) {
	var old []id.ID
	for _, r := range rows {
		if r.Fence > 1 {
			old = append(old, r.ID)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	steps, err := q.StepsOf(ctx, old)
	if err != nil {
		return nil, fmt.Errorf("read journals: %w", pgtx.Map(err))
	}
	by := map[id.ID][]query.JobStep{}
	for _, s := range steps {
		by[s.JobID] = append(by[s.JobID], s)
	}
	return by, nil
}

func (e *Executor) newClaim(r query.ClaimJobsRow, steps []query.JobStep) *claim {
	c := e.claimOf(r)
	if r.UnwindCode != nil && r.UnwindMessage != nil {
		c.unwind = errs.New(errs.Code(*r.UnwindCode), "%s", *r.UnwindMessage)
	}
	for _, s := range steps {
		c.recall(s)
	}
	return c
}

// claimOf is a claim without a journal yet.
func (e *Executor) claimOf(r query.ClaimJobsRow) *claim {
	c := &claim{
		ex: e, flow: e.flows[r.Kind], fence: r.Fence, params: r.Params, outputs: map[string]json.RawMessage{},
		wakes: r.Wakes, progress: int(r.Progress),
		log: e.opts.Log.With("job", r.ID, "kind", r.Kind, "attempt", r.Fence),
		job: Job{
			ID: r.ID, Kind: r.Kind, ProjectID: r.ProjectID, OpSeq: r.OpSeq, CreatedBy: r.CreatedBy, RequestID: r.RequestID,
			Target: Target{Kind: r.TargetKind, ID: r.TargetID, Name: r.TargetName},
		},
	}
	c.journal = make([]*entry, len(c.flow.steps))
	return c
}

// recall takes in one line of the journal. A line that does not fit the flow as
// this program knows it is left out of the claim and found by misfit.
func (c *claim) recall(s query.JobStep) {
	pos := int(s.Position)
	if pos < 0 || pos >= len(c.journal) || c.flow.steps[pos].name != s.Name {
		c.journal = nil
	}
	if c.journal == nil {
		return
	}
	c.journal[pos] = &entry{state: s.State, failures: int(s.Failures)}
	if len(s.Output) > 0 {
		c.outputs[s.Name] = s.Output
	}
}

func (e *Executor) start(root context.Context, c *claim) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active[c.job.ID] = c
	e.drive(root, c)
}

// drive runs the claim; the executor is locked, so that none begins once it waits
// for all.
func (e *Executor) drive(root context.Context, c *claim) {
	e.wg.Go(func() {
		bound, cancel := e.opts.Members.Bind(root)
		defer cancel()
		select {
		case e.slots <- struct{}{}:
			c.settle(bound, c.run(bound))
			<-e.slots
		case <-bound.Done():
			c.settle(bound, context.Cause(bound))
		}
		e.mu.Lock()
		full := len(e.active)-e.born >= e.opts.Workers
		e.forget(c)
		e.mu.Unlock()
		if full {
			e.Nudge()
		}
	})
}

// forget is for a claim that is no longer driven; the executor is locked.
func (e *Executor) forget(c *claim) {
	delete(e.active, c.job.ID)
	if c.born {
		e.born--
	}
}

// activeIDs gives the jobs that are driven, and how many of them were claimed.
func (e *Executor) activeIDs() (ids []id.ID, claimed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids = make([]id.ID, 0, len(e.active))
	for j := range e.active {
		ids = append(ids, j)
	}
	return ids, len(ids) - e.born
}

// lookForCancels ends the steps of jobs that somebody asked to cancel.
func (e *Executor) lookForCancels(ctx context.Context, q *query.Queries) error {
	var ids []id.ID
	e.mu.Lock()
	for j, c := range e.active {
		if c.cancellable.Load() {
			ids = append(ids, j)
		}
	}
	e.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	asked, err := q.CancelRequests(ctx, ids)
	if err != nil {
		return fmt.Errorf("look for cancelled jobs: %w", pgtx.Map(err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range asked {
		if c := e.active[j]; c != nil && c.cancellable.Load() && c.endStep != nil {
			c.endStep(errCancelAsked)
		}
	}
	return nil
}

// stepContext gives the context of going forward, which a cancel request ends.
func (c *claim) stepContext() (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(c.parent)
	c.ex.mu.Lock()
	c.endStep = end
	c.ex.mu.Unlock()
	return ctx, func() { end(context.Canceled) }
}

// settle does what is left to do after a claim's run.
func (c *claim) settle(ctx context.Context, err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrKilled):
		c.ex.kill()
	case errors.Is(err, ErrClaimLost):
		c.log.Info("lost the claim")
	case c.ex.life.Err() != nil:
		// a server that stops ends its membership too, perhaps first: its claims are
		// given back all the same
		c.release(ctx)
	case ctx.Err() != nil:
		c.log.Info("dropped the claim", "cause", context.Cause(ctx))
	default:
		// held and not driven: a later round takes it again
		c.log.Warn("cannot go on with a job", "error", err)
	}
}

func (c *claim) release(ctx context.Context) {
	err := c.write(ctx, func(ctx context.Context) error {
		return query.New(c.ex.opts.Pool).Release(ctx, query.ReleaseParams{ID: c.job.ID, Holder: c.holder(), Fence: c.fence})
	})
	if err != nil {
		c.log.Warn("cannot release a claim", "error", err)
	}
}

func (c *claim) holder() id.ID { return c.ex.opts.Members.ID() }

// inTx implements Run.InTx.
func (c *claim) inTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	if c.ex.isKilled() {
		return ErrKilled
	}
	if c.accepting != nil {
		return fn(c.accepting) // the job is not to be seen by anyone yet
	}
	err := pgtx.Run(ctx, c.ex.opts.Pool, func(tx pgx.Tx) error {
		if err := c.lock(ctx, tx); err != nil {
			return err
		}
		return fn(tx)
	})
	if err == nil {
		c.ex.opts.Committed()
	}
	return err
}

// lock holds the claim's row until tx ends.
func (c *claim) lock(ctx context.Context, tx pgx.Tx) error {
	_, err := query.New(tx).LockClaim(ctx, query.LockClaimParams{ID: c.job.ID, Holder: c.holder(), Fence: c.fence})
	return lost(err)
}

// lost turns "no such claim" into ErrClaimLost.
func lost(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrClaimLost
	}
	return err
}

func (c *claim) unwinding() bool { return c.unwind != nil }

// reportProgress implements Run.Progress.
func (c *claim) reportProgress(ctx context.Context, percent int) error {
	total := c.percent(c.pos, percent)
	if total == c.progress || c.unwinding() {
		return nil
	}
	err := c.inTx(ctx, func(tx pgx.Tx) error {
		q := query.New(tx)
		n, err := q.SetProgress(ctx, query.SetProgressParams{
			Progress: int32(total), ID: c.job.ID, Holder: c.holder(), Fence: c.fence,
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrClaimLost // not to be seen under the lock
		}
		return q.JobEvent(ctx, query.JobEventParams{ID: c.job.ID, Step: c.flow.steps[c.pos].name})
	})
	if err == nil {
		c.progress = total
	}
	return err
}

// percent is the job's progress when steps before pos are done and this one is
// so far. Only an ended job has 100.
func (c *claim) percent(pos, ofStep int) int {
	return min((pos*100+ofStep)/len(c.flow.steps), 99)
}

// writeTries is how often a journal entry is written before the claim is
// dropped: its effect is there, so it is worth some patience.
const writeTries = 4

// write runs a write of the journal. It does not end with the step's context:
// what happened is to be recorded even when the server stops. It is repeated when
// the database was away, which is safe as every such write names the claim.
func (c *claim) write(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var err error
	for try := range writeTries {
		if try > 0 {
			if c.ex.opts.Clock.Sleep(ctx, time.Duration(try)*100*time.Millisecond) != nil {
				break
			}
		}
		if c.ex.isKilled() {
			return ErrKilled
		}
		err = lost(pgtx.Map(fn(ctx)))
		if !errs.Is(err, errs.DBUnavailable) {
			break
		}
	}
	if err == nil {
		c.ex.opts.Committed()
	}
	return err
}

// writeTx is write with several statements, begun by locking the claim.
func (c *claim) writeTx(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx, q *query.Queries) error) error {
	return c.write(ctx, func(ctx context.Context) error {
		return pgtx.Run(ctx, c.ex.opts.Pool, func(tx pgx.Tx) error {
			if err := c.lock(ctx, tx); err != nil {
				return err
			}
			return fn(ctx, tx, query.New(tx))
		})
	})
}
