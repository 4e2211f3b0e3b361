package prove

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// at is a moment of a step.
type at struct {
	moment workflow.Moment
	step   string
}

func (a *at) is(p workflow.Point) bool {
	return a != nil && a.moment == p.Moment && a.step == p.Step
}

// disturbance is what happens to a run.
type disturbance struct{ fail, kill, cancel *at }

// failTimes is how often an injected failure repeats: a job that may go back
// does so at the first; past the point of no return it must outlast them.
const failTimes = 3

// saboteur applies a disturbance through the executor's fault hook.
type saboteur struct {
	ctx  context.Context
	pool pgtx.Beginner
	d    disturbance
	poke func()

	mu     sync.Mutex
	failed int
	killed bool
	asked  bool
	err    error
}

func (s *saboteur) fault(p workflow.Point) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.d.kill.is(p) && !s.killed {
		s.killed = true
		return workflow.ErrKilled
	}
	if s.d.cancel.is(p) && !s.asked {
		s.asked = true
		s.err = pgtx.Run(s.ctx, s.pool, func(tx pgx.Tx) error { return workflow.Cancel(s.ctx, tx, p.Job) })
		s.poke()
	}
	if s.d.fail.is(p) && s.failed < failTimes {
		s.failed++
		return errs.New(errs.HostFailure, "injected failure %s of %s", p.Moment, p.Step)
	}
	return nil
}

// done tells what of the disturbance never happened: then nothing was proved.
func (s *saboteur) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	if s.d.kill != nil && !s.killed {
		out = append(out, "the executor was never killed: the moment did not come")
	}
	if s.d.fail != nil && s.failed == 0 {
		out = append(out, "the failure was never injected: the moment did not come")
	}
	if s.d.cancel != nil && (!s.asked || s.err != nil) {
		out = append(out, fmt.Sprintf("the job was not cancelled: asked %v, %v", s.asked, s.err))
	}
	return out
}

// server is a membership for proofs: it lives until the test says otherwise.
type server struct {
	id   id.ID
	dead id.ID
}

// ID implements workflow.Membership.
func (s server) ID() id.ID { return s.id }

// Dead implements workflow.Membership.
func (s server) Dead(other id.ID) bool { return other == s.dead }

// Bind implements workflow.Membership.
func (s server) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// run runs one combination in a world and gives what is wrong.
func run[E any](s Subject[E], w World[E], c Combination) []string {
	limit := s.Limit
	if limit == 0 {
		limit = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	sab := &saboteur{ctx: ctx, pool: w.Pool, d: c.disturb}
	first := server{id: id.New()}
	opts := workflow.Options{
		Pool: w.Pool, Members: first, Clock: clock.System{}, Flows: []workflow.Bound{workflow.Bind(s.Flow, w.Env)},
		Poll: 20 * time.Millisecond, Twice: c.twice, Fault: sab.fault,
		Backoff: func(int) time.Duration { return time.Millisecond },
	}
	which, err := drive(ctx, w, opts, sab, c.accepted, nil)
	if errors.Is(err, workflow.ErrKilled) {
		opts.Members = server{id: id.New(), dead: first.id}
		which, err = drive(ctx, w, opts, sab, c.accepted, which)
	}
	if err != nil {
		return append(sab.done(), err.Error())
	}
	return append(sab.done(), examine(ctx, w, c, *which)...)
}

// drive runs an executor until the job has ended or the executor was killed. The
// job is started here when there is none yet: before the executor, or, when that is
// to accept it, after.
func drive[E any](ctx context.Context, w World[E], opts workflow.Options, sab *saboteur, accepted bool, which *id.ID) (*id.ID, error) {
	e := workflow.New(opts)
	sab.mu.Lock()
	sab.poke = e.Nudge
	sab.mu.Unlock()
	life, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	begin := func() { go func() { done <- e.Run(life) }() }
	if accepted {
		begin()
		<-e.Ready()
		w.Accept(e)
		defer w.Accept(nil)
	}
	if which == nil {
		j, err := w.Start(ctx)
		if errors.Is(err, workflow.ErrKilled) {
			return nil, <-done // nothing was accepted
		}
		if err != nil {
			return nil, fmt.Errorf("start the job: %w", err)
		}
		which = &j
	}
	if !accepted {
		begin()
	}
	return which, await(ctx, opts, *which, done, stop)
}

// await waits until the job has ended, then stops the executor.
func await(ctx context.Context, opts workflow.Options, which id.ID, done <-chan error, stop func()) error {
	for {
		var state job.State
		var reason string
		err := opts.Pool.QueryRow(ctx, "SELECT state, wait_reason FROM jobs WHERE id = $1", which).Scan(&state, &reason)
		if err == nil && !state.Ended() {
			err = opts.Clock.Sleep(ctx, 2*time.Millisecond)
		}
		select {
		case err := <-done:
			return err
		default:
		}
		if err != nil {
			stop()
			return fmt.Errorf("the job does not end: it is %s %q: %w", state, reason, errors.Join(err, <-done))
		}
		if state.Ended() {
			// the moment after the end may still kill the executor
			stop()
			return <-done
		}
	}
}

// examine checks the world after the job has ended.
func examine[E any](ctx context.Context, w World[E], c Combination, which id.ID) []string {
	var out []string
	if w.Settle != nil {
		if err := w.Settle(ctx); err != nil {
			out = append(out, fmt.Sprintf("the world does not settle: %v", err))
		}
	}
	end, wrong, err := journal(ctx, w, which)
	if err != nil {
		return append(out, err.Error())
	}
	out = append(out, wrong...)
	if end != c.Want {
		out = append(out, fmt.Sprintf("the job is %s, not %s", end, c.Want))
	}
	if err := w.Check(ctx, which, end); err != nil {
		out = append(out, fmt.Sprintf("after %s: %v", end, err))
	}
	left, err := w.Leftovers(ctx)
	if err != nil {
		out = append(out, fmt.Sprintf("look for leftovers: %v", err))
	}
	if len(left) > 0 {
		out = append(out, fmt.Sprintf("after %s this is left: %s", end, strings.Join(left, ", ")))
	}
	return out
}

// journal reads how the job ended and what its journal holds against that.
func journal[E any](ctx context.Context, w World[E], which id.ID) (job.State, []string, error) {
	var end job.State
	var message string
	err := w.Pool.QueryRow(ctx, "SELECT state, coalesce(error_message, '') FROM jobs WHERE id = $1", which).Scan(&end, &message)
	if err != nil {
		return "", nil, fmt.Errorf("read the job: %w", err)
	}
	want := "undone"
	if end == job.Succeeded {
		want = "done"
	}
	var out []string
	if end == job.NeedsAttention {
		return end, []string{"it needs attention: " + message}, nil
	}
	rows, err := w.Pool.Query(ctx,
		"SELECT name, state::text FROM job_steps WHERE job_id = $1 AND state::text <> $2 ORDER BY position", which, want)
	if err != nil {
		return "", nil, fmt.Errorf("read the journal: %w", err)
	}
	var name, state string
	_, err = pgx.ForEachRow(rows, []any{&name, &state}, func() error {
		out = append(out, fmt.Sprintf("the job is %s and its step %s is %s", end, name, state))
		return nil
	})
	return end, out, err
}
