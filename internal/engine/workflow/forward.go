package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// doneStep is a step whose effect is there and whose journal entry is not yet:
// it is written together with what comes next.
type doneStep struct {
	pos    int
	output json.RawMessage
}

// run drives the job until it ends, parks, or the claim does.
func (c *claim) run(ctx context.Context) error {
	c.parent = ctx
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.journal == nil {
		return c.attention(ctx, "its journal was written by a version of NovaCron whose "+c.flow.name+
			" has other steps: run that version until the job has ended")
	}
	if c.unwinding() {
		return c.backward(ctx)
	}
	return c.forward()
}

// forward runs the steps that are not done.
func (c *claim) forward() error {
	ctx, cancel := c.stepContext()
	defer cancel()
	var done *doneStep
	for c.pos = c.firstOpen(); c.pos < len(c.flow.steps); c.pos++ {
		var err error
		if !c.begun {
			err = c.advance(ctx, done)
		}
		c.begun = false
		if errors.Is(err, errCancelAsked) {
			return c.startUnwind(done, -1, cancelled())
		}
		if err == nil && c.parent.Err() != nil {
			err = context.Cause(c.parent)
		}
		if err != nil {
			return err
		}
		out, err := c.do(ctx)
		if err != nil {
			return c.doFailed(ctx, err)
		}
		done = &doneStep{pos: c.pos, output: out}
		c.outputs[c.flow.steps[c.pos].name] = out
	}
	c.cancellable.Store(false)
	err := c.finish(job.Succeeded, done, nil)
	if errors.Is(err, errCancelAsked) {
		return c.startUnwind(done, -1, cancelled())
	}
	return err
}

func cancelled() *errs.Error { return errs.New(errs.Cancelled, "cancelled on request") }

func (c *claim) firstOpen() int {
	for i, e := range c.journal {
		if e == nil || e.state != query.StepStateDone {
			return i
		}
	}
	return len(c.journal)
}

// advance records the step before as done and this one as begun.
func (c *claim) advance(ctx context.Context, done *doneStep) error {
	s := c.flow.steps[c.pos]
	p := query.AdvanceParams{
		Progress: int32(c.percent(c.pos, 0)), Cancellable: s.cancellable,
		ID: c.job.ID, Holder: c.holder(), Fence: c.fence, Done: -1, Next: int32(c.pos), Name: s.name,
		Relaxed: s.inDatabase,
	}
	if done != nil {
		p.Done, p.Output = int32(done.pos), done.output
	}
	err := c.write(ctx, func(ctx context.Context) error {
		row, err := query.New(c.ex.opts.Pool).Advance(ctx, p)
		if err == nil {
			c.wakes = row.Wakes
		}
		return err
	})
	if errors.Is(err, ErrClaimLost) {
		return c.cancelOrLost(ctx)
	}
	if err != nil {
		return err
	}
	c.progress = c.percent(c.pos, 0)
	if done != nil {
		c.journal[done.pos] = &entry{state: query.StepStateDone}
	}
	if c.journal[c.pos] == nil {
		c.journal[c.pos] = &entry{state: query.StepStateRunning}
	}
	c.cancellable.Store(s.cancellable)
	return nil
}

// cancelOrLost tells why nothing was written.
func (c *claim) cancelOrLost(ctx context.Context) error {
	var asked bool
	err := c.write(ctx, func(ctx context.Context) (err error) {
		asked, err = query.New(c.ex.opts.Pool).ClaimState(ctx, query.ClaimStateParams{ID: c.job.ID, Holder: c.holder(), Fence: c.fence})
		return err
	})
	if err == nil && asked {
		return errCancelAsked
	}
	if err == nil {
		return ErrClaimLost
	}
	return err
}

// do runs the current step.
func (c *claim) do(ctx context.Context) (json.RawMessage, error) {
	s := c.flow.steps[c.pos]
	if err := c.fault(BeforeDo, s.name); err != nil {
		return nil, err
	}
	var out any
	for range c.times() {
		err := guard(func() (err error) { out, err = s.do(ctx, c); return err })
		if err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, errs.New(errs.Internal, "the output of step %s cannot be written", s.name).Because(err)
	}
	return raw, c.fault(AfterDo, s.name)
}

func (c *claim) times() int {
	if c.ex.opts.Twice {
		return 2
	}
	return 1
}

// guard turns a panic of a step into an error: one bad job must not end the
// server that runs all the others.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "a step failed by a fault of the program; the server's log has it").
				Because(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return f()
}

func (c *claim) fault(m Moment, step string) error {
	if c.ex.opts.Fault == nil {
		return nil
	}
	err := c.ex.opts.Fault(Point{Moment: m, Job: c.job.ID, Flow: c.flow.name, Step: step, Fence: c.fence})
	if errors.Is(err, ErrKilled) {
		c.ex.kill()
	}
	return err
}

// interrupted tells whether a step ended because its context did, or because
// somebody else has the job: then its error means nothing.
func interrupted(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrKilled), errors.Is(err, ErrClaimLost):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// doFailed decides what an error of the current step's Do means.
func (c *claim) doFailed(ctx context.Context, err error) error {
	c.cancellable.Store(false)
	if why := interrupted(ctx, err); why != nil {
		if errors.Is(why, errCancelAsked) {
			return c.startUnwind(nil, c.pos, cancelled())
		}
		return why
	}
	if w, ok := asWait(err); ok {
		return c.park(ctx, w.reason, w.after, 0, nil)
	}
	fail := classify(err)
	c.log.Warn("step failed", "step", c.flow.steps[c.pos].name, "error", err)
	failures, past := c.journal[c.pos].failures+1, c.pastNoReturn()
	most := c.ex.opts.MaxFailures
	if past {
		most = c.ex.opts.MaxFailuresAfter
	}
	switch {
	case (past || retryable(fail)) && failures < most:
		reason := fmt.Sprintf("%s (failure %d of %d; trying again)", fail.Message, failures, most)
		return c.park(ctx, reason, c.ex.opts.Backoff(failures), failures, fail)
	case past:
		return c.attention(ctx, fmt.Sprintf("step %s failed %d times and the job cannot go back: %s",
			c.flow.steps[c.pos].name, failures, fail.Message))
	default:
		return c.startUnwind(nil, c.pos, fail)
	}
}

// classify gives an error of a step its code.
func classify(err error) *errs.Error {
	err = pgtx.Map(err)
	var coded *errs.Error
	if !errors.As(err, &coded) && errors.Is(err, context.DeadlineExceeded) {
		return errs.New(errs.Timeout, "it took too long").Because(err)
	}
	return errs.As(err)
}

// pastNoReturn tells whether the current step is at or after the point of no
// return, which has then begun.
func (c *claim) pastNoReturn() bool {
	for i := range min(c.pos+1, len(c.flow.steps)) {
		if c.flow.steps[i].noReturn {
			return true
		}
	}
	return false
}

// park lets go of the job until later; fail is nil when nothing failed.
func (c *claim) park(ctx context.Context, reason string, after time.Duration, failures int, fail *errs.Error) error {
	after = min(after, mostWait)
	p := query.ParkParams{
		Reason: reason, Wakes: c.wakes, Seconds: after.Seconds(), ID: c.job.ID, Holder: c.holder(), Fence: c.fence,
		Failures: int32(failures), Position: int32(c.pos),
	}
	if c.pos < len(c.flow.steps) {
		p.Name = c.flow.steps[c.pos].name
	}
	if fail != nil {
		code := string(fail.Code)
		p.Code, p.Message = &code, &fail.Message
	}
	err := c.write(ctx, func(ctx context.Context) error {
		_, err := query.New(c.ex.opts.Pool).Park(ctx, p)
		return err
	})
	if err == nil {
		c.ex.parkedFor(after)
	}
	return err
}

// attention stops the job for an operator; it keeps its hold.
func (c *claim) attention(ctx context.Context, why string) error {
	c.log.Error("job needs attention", "why", why)
	return c.writeTx(ctx, func(ctx context.Context, _ pgx.Tx, q *query.Queries) error {
		_, err := q.Attention(ctx, query.AttentionParams{
			Reason: why, Message: why, ID: c.job.ID, Holder: c.holder(), Fence: c.fence,
		})
		if err != nil {
			return err
		}
		return q.JobEvent(ctx, query.JobEventParams{ID: c.job.ID})
	})
}

// finish ends the job, with what Finish has to do, in one transaction. undone
// are steps whose undo is there and not journaled yet.
func (c *claim) finish(state job.State, done *doneStep, undone []int) error {
	ctx := c.parent
	err := c.fault(BeforeFinish, "")
	switch {
	case err != nil:
	case state == job.Succeeded:
		err = c.ex.succeed(c, done)
	default:
		err = c.endAlone(state, done, undone)
	}
	if err == nil {
		return c.fault(AfterFinish, "")
	}
	if errors.Is(err, errCancelAsked) {
		return err
	}
	return c.finishFailed(ctx, err, done, undone)
}

// endAlone ends the job in a transaction of its own.
func (c *claim) endAlone(state job.State, done *doneStep, undone []int) error {
	return c.write(c.parent, func(ctx context.Context) error {
		return pgtx.Run(ctx, c.ex.opts.Pool, func(tx pgx.Tx) error { return c.end(ctx, tx, state, done, undone) })
	})
}

func (c *claim) end(ctx context.Context, tx pgx.Tx, state job.State, done *doneStep, undone []int) error {
	p := query.EndParams{State: query.JobState(state), ID: c.job.ID, Holder: c.holder(), Fence: c.fence, Done: -1, Undone: []int32{}}
	if done != nil {
		p.Done, p.Output = int32(done.pos), done.output
	}
	for _, pos := range undone {
		p.Undone = append(p.Undone, int32(pos))
	}
	n, err := query.New(tx).End(ctx, p)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := c.lock(ctx, tx); err != nil {
			return err
		}
		return errCancelAsked // the claim is ours, so nothing else stands against it
	}
	out := Outcome{State: state}
	if state == job.Failed {
		out.Err = c.unwind
	}
	return guard(func() error { return c.flow.finish(ctx, tx, c, out) })
}

// record writes what happened and is not in the journal yet.
func (c *claim) record(ctx context.Context, q *query.Queries, done *doneStep, undone []int) error {
	if done != nil {
		err := q.StepDone(ctx, query.StepDoneParams{Output: done.output, JobID: c.job.ID, Position: int32(done.pos)})
		if err != nil {
			return err
		}
	}
	for _, pos := range undone {
		if err := q.StepUndone(ctx, query.StepUndoneParams{JobID: c.job.ID, Position: int32(pos)}); err != nil {
			return err
		}
	}
	return nil
}

// finishFailed: everything is done or undone, and only the end cannot be
// written. It is tried again, then an operator is called.
func (c *claim) finishFailed(ctx context.Context, err error, done *doneStep, undone []int) error {
	if why := interrupted(ctx, err); why != nil {
		return why
	}
	c.log.Warn("cannot end a job", "error", err)
	if done != nil || len(undone) > 0 {
		err := c.writeTx(ctx, func(ctx context.Context, _ pgx.Tx, q *query.Queries) error { return c.record(ctx, q, done, undone) })
		if err != nil {
			return err
		}
	}
	// the count is kept with the last step going forward, the first going back
	c.pos = len(c.flow.steps) - 1
	if c.unwinding() {
		c.pos = 0
	}
	failures := c.ex.opts.MaxFailuresAfter - 1 // a job without a journal keeps no count and is tried slowly
	if e := c.journal[c.pos]; e != nil {
		failures = e.failures + 1
	}
	fail := classify(err)
	if failures >= c.ex.opts.MaxFailuresAfter {
		return c.attention(ctx, "all its steps are settled and its end cannot be recorded: "+fail.Message)
	}
	return c.park(ctx, "its end cannot be recorded: "+fail.Message, c.ex.opts.Backoff(failures), failures, nil)
}
