package workflow

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// startUnwind turns the job around: done was just done, failed (if not -1) is
// the step that failed and may have happened in part.
func (c *claim) startUnwind(done *doneStep, failed int, why *errs.Error) error {
	ctx := c.parent
	err := c.writeTx(ctx, func(ctx context.Context, _ pgx.Tx, q *query.Queries) error {
		if err := c.record(ctx, q, done, nil); err != nil {
			return err
		}
		if failed >= 0 {
			err := q.StepFailed(ctx, query.StepFailedParams{
				Code: string(why.Code), Message: why.Message, JobID: c.job.ID, Position: int32(failed),
			})
			if err != nil {
				return err
			}
		}
		_, err := q.Unwind(ctx, query.UnwindParams{
			Code: string(why.Code), Message: why.Message, ID: c.job.ID, Holder: c.holder(), Fence: c.fence,
		})
		if err != nil {
			return err
		}
		return q.JobEvent(ctx, query.JobEventParams{ID: c.job.ID})
	})
	if err != nil {
		return err
	}
	if done != nil {
		c.journal[done.pos] = &entry{state: query.StepStateDone}
	}
	if failed >= 0 {
		c.journal[failed] = &entry{state: query.StepStateFailed}
	}
	c.unwind = why
	return c.backward(ctx)
}

// backward undoes what is not undone, last step first, then ends the job.
func (c *claim) backward(ctx context.Context) error {
	var undone []int // undone and not journaled yet
	for c.pos = len(c.journal) - 1; c.pos >= 0; c.pos-- {
		e := c.journal[c.pos]
		if e == nil || e.state == query.StepStateUndone {
			continue
		}
		if c.flow.steps[c.pos].undo == nil {
			undone = append(undone, c.pos)
			continue
		}
		if err := c.turn(ctx, undone); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.undo(ctx); err != nil {
			return c.undoFailed(ctx, err)
		}
		undone = []int{c.pos}
	}
	state := job.Failed
	if c.unwind.Code == errs.Cancelled {
		state = job.Cancelled
	}
	return c.finish(state, nil, undone)
}

// turn records what is undone and that the current step's undo begins.
func (c *claim) turn(ctx context.Context, undone []int) error {
	err := c.writeTx(ctx, func(ctx context.Context, _ pgx.Tx, q *query.Queries) error {
		if err := c.record(ctx, q, nil, undone); err != nil {
			return err
		}
		err := q.StepUndoing(ctx, query.StepUndoingParams{JobID: c.job.ID, Position: int32(c.pos)})
		if err != nil {
			return err
		}
		return q.JobEvent(ctx, query.JobEventParams{ID: c.job.ID, Step: c.flow.steps[c.pos].name + UndoSuffix})
	})
	if err != nil {
		return err
	}
	for _, pos := range undone {
		c.journal[pos].state = query.StepStateUndone
	}
	return nil
}

func (c *claim) undo(ctx context.Context) error {
	s := c.flow.steps[c.pos]
	if err := c.fault(BeforeUndo, s.name); err != nil {
		return err
	}
	for range c.times() {
		if err := guard(func() error { return s.undo(ctx, c) }); err != nil {
			return err
		}
	}
	return c.fault(AfterUndo, s.name)
}

// undoFailed decides what an error of the current step's Undo means: one worth
// another try is tried until it works, since nobody else can take the step back.
func (c *claim) undoFailed(ctx context.Context, err error) error {
	if why := interrupted(ctx, err); why != nil {
		return why
	}
	failures := c.journal[c.pos].failures
	if w, ok := asWait(err); ok {
		return c.park(ctx, w.reason, w.after, 0, nil)
	}
	name, fail := c.flow.steps[c.pos].name, classify(err)
	c.log.Warn("undo failed", "step", name, "error", err)
	if retryable(fail) || errs.Is(fail, errs.NoSpace) {
		failures++
		return c.park(ctx, fmt.Sprintf("undoing %s: %s (trying again)", name, fail.Message),
			c.ex.opts.Backoff(failures), failures, fail)
	}
	return c.attention(ctx, fmt.Sprintf("step %s could not be undone: %s; still to undo: %s; it unwinds because: %s",
		name, fail.Message, strings.Join(c.stillToUndo(), ", "), c.unwind.Message))
}

// stillToUndo names the steps whose effects are left.
func (c *claim) stillToUndo() []string {
	var left []string
	for pos := c.pos; pos >= 0; pos-- {
		e := c.journal[pos]
		if e != nil && e.state != query.StepStateUndone && c.flow.steps[pos].undo != nil {
			left = append(left, c.flow.steps[pos].name)
		}
	}
	return left
}
