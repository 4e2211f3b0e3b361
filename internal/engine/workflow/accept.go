package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Accept is Enqueue for a server that runs an executor: the job is born in its
// hands, and the steps at the head of its flow that are all in the database
// (Step.InDatabase) happen in the very transaction that accepts it. What is left
// begins with Birth.Begin, after the commit, without a look for work.
//
// An executor that is full, stopping or not a member leaves the job to whoever
// comes; a head step that fails or waits leaves no trace, and the job is queued to
// fail or wait in the open.
func (e *Executor) Accept(ctx context.Context, tx pgx.Tx, j NewJob) (*Birth, error) {
	params, err := json.Marshal(j.Params)
	if err != nil {
		return nil, errs.New(errs.Internal, "the parameters of a %s job cannot be written", j.Kind).Because(err)
	}
	c := e.reserve(ctx, j, params)
	if c == nil {
		return nil, Enqueue(ctx, tx, j)
	}
	b := &Birth{c}
	err = c.head(ctx, tx, j.Seen)
	if errors.Is(err, errNotAtHead) {
		b.Drop()
		return nil, Enqueue(ctx, tx, j)
	}
	if err == nil {
		err = c.insert(ctx, tx)
	}
	if err != nil {
		b.Drop()
		return nil, err
	}
	return b, nil
}

// Birth is a job that Accept took on in a transaction that is still open. Exactly
// one of its methods is called when that has ended. All of a nil Birth do nothing.
type Birth struct{ c *claim }

// Job is the job as its record has it at the time of its transaction; nil of a nil
// Birth.
func (b *Birth) Job(at time.Time) *job.Job {
	if b == nil {
		return nil
	}
	c := b.c
	j := job.Job{
		ID: c.job.ID, ProjectID: c.job.ProjectID, Kind: c.job.Kind, TargetKind: c.job.Target.Kind, TargetID: c.job.Target.ID, TargetName: c.job.Target.Name,
		State: job.Running, OpSeq: c.job.OpSeq, Progress: c.progress, CreatedBy: c.job.CreatedBy, Revision: 1, CreatedAt: at, StartedAt: &at,
	}
	for i := range min(c.pos+1, len(c.flow.steps)) {
		s := job.Step{Position: i, Name: c.flow.steps[i].name, State: string(query.StepStateDone), StartedAt: at, FinishedAt: &at}
		if i == c.pos {
			s.State, s.FinishedAt = string(query.StepStateRunning), nil
			j.Cancellable = c.flow.steps[i].cancellable
		}
		j.Steps = append(j.Steps, s)
	}
	return &j
}

// Headed tells whether the head of the flow has run in the transaction; false of a
// nil Birth.
func (b *Birth) Headed() bool { return b != nil && b.c.pos > 0 }

// Begin drives the job: its transaction has committed.
func (b *Birth) Begin() {
	if b == nil {
		return
	}
	e := b.c.ex
	e.mu.Lock()
	running := !e.stopped
	if running {
		e.drive(e.root, b.c)
	}
	e.mu.Unlock()
	if !running {
		b.c.release(context.Background())
	}
}

// Drop forgets the job: its transaction did not commit, or nobody knows. Should it
// have, a later round finds the job held here and not driven.
func (b *Birth) Drop() {
	if b == nil {
		return
	}
	b.c.ex.mu.Lock()
	defer b.c.ex.mu.Unlock()
	b.c.ex.forget(b.c)
}

// errNotAtHead says that a head step did not come to its end.
var errNotAtHead = errors.New("workflow: a step cannot be done while the job is accepted")

// bornPerWorker bounds the jobs that were accepted and wait for a worker.
const bornPerWorker = 4

// reserve takes one of the executor's places for the job; nil when it cannot.
func (e *Executor) reserve(ctx context.Context, j NewJob, params json.RawMessage) *claim {
	flow := e.flows[j.Kind]
	bound, cancel := e.opts.Members.Bind(ctx)
	defer cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	if flow == nil || bound.Err() != nil || e.root == nil || e.stopped || e.isKilled() || e.born >= bornPerWorker*e.opts.Workers {
		return nil
	}
	c := e.claimOf(query.ClaimJobsRow{
		ID: j.ID, ProjectID: j.ProjectID, Kind: j.Kind, TargetKind: j.Target.Kind, TargetID: j.Target.ID, TargetName: j.Target.Name,
		Params: params, OpSeq: j.OpSeq, Fence: FirstAttempt, CreatedBy: j.CreatedBy, RequestID: j.RequestID,
	})
	c.born = true
	e.active[j.ID] = c
	e.born++
	return c
}

// head runs the steps that come first and are all in the database, inside tx, and
// leaves pos at the first that is not.
func (c *claim) head(ctx context.Context, tx pgx.Tx, seen any) error {
	if !c.flow.steps[0].inDatabase {
		return nil
	}
	inner, err := tx.Begin(ctx)
	if err != nil {
		return pgtx.Map(err)
	}
	c.accepting, c.seen = inner, seen
	defer func() { c.accepting, c.seen = nil, nil }()
	for ; c.pos < len(c.flow.steps) && c.flow.steps[c.pos].inDatabase; c.pos++ {
		out, err := c.do(ctx)
		if errors.Is(err, ErrKilled) || ctx.Err() != nil || pgtx.LostRace(err) {
			return err
		}
		if err != nil {
			c.pos, c.outputs, c.kept = 0, map[string]json.RawMessage{}, nil
			return errors.Join(errNotAtHead, pgtx.Map(inner.Rollback(ctx)))
		}
		c.outputs[c.flow.steps[c.pos].name] = out
		c.journal[c.pos] = &entry{state: query.StepStateDone}
	}
	return pgtx.Map(inner.Commit(ctx))
}

// insert records the job as claimed, with its head done and the next step begun. It
// is sent with whatever comes next in tx.
func (c *claim) insert(ctx context.Context, tx pgx.Tx) error {
	p := query.InsertClaimedParams{
		ID: c.job.ID, ProjectID: c.job.ProjectID, Kind: c.job.Kind,
		TargetKind: c.job.Target.Kind, TargetID: c.job.Target.ID, TargetName: c.job.Target.Name,
		Params: c.params, OpSeq: c.job.OpSeq, CreatedBy: c.job.CreatedBy, RequestID: c.job.RequestID,
		Holder: c.holder(), Fence: c.fence, Next: int32(c.pos), Progress: int32(c.percent(c.pos, 0)),
	}
	for i := range min(c.pos+1, len(c.flow.steps)) {
		s := c.flow.steps[i]
		p.Positions, p.Names = append(p.Positions, int32(i)), append(p.Names, s.name)
		p.Outputs = append(p.Outputs, string(c.outputs[s.name]))
		if i == c.pos {
			c.journal[i] = &entry{state: query.StepStateRunning}
			p.Step, p.Cancellable = s.name, s.cancellable
			c.cancellable.Store(s.cancellable)
		}
	}
	c.progress, c.begun = int(p.Progress), true
	return pgtx.Map(query.New(pgtx.Later(tx)).InsertClaimed(ctx, p))
}
