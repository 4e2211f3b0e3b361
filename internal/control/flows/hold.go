package flows

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// lookForHold is how long a held job sleeps between two looks; the end of the hold
// wakes it.
const lookForHold = 10 * time.Second

// held makes no step of a flow begin while what it is about is in recovery hold:
// the database may be older than what the job would do again.
func held(f workflow.Flow[Env]) workflow.Flow[Env] {
	for i := range f.Steps {
		do, undo := f.Steps[i].Do, f.Steps[i].Undo
		f.Steps[i].Do = func(ctx context.Context, r *run) (any, error) {
			if err := await(ctx, r); err != nil {
				return nil, err
			}
			return do(ctx, r)
		}
		if undo == nil {
			continue
		}
		f.Steps[i].Undo = func(ctx context.Context, r *run) error {
			if err := await(ctx, r); err != nil {
				return err
			}
			return undo(ctx, r)
		}
	}
	return f
}

// await parks the job while it is held.
func await(ctx context.Context, r *run) error {
	if r.Env.Holds == nil || r.Env.Holds.Any() == nil {
		return nil
	}
	on, err := nodeOf(ctx, r)
	if err != nil {
		return err
	}
	if why := r.Env.Holds.On(on); why != nil {
		return workflow.Wait(errs.As(why).Message, lookForHold)
	}
	return nil
}

// nodeOf is the node of the job's VM, if there is one.
func nodeOf(ctx context.Context, r *run) (*id.ID, error) {
	if r.Job.Target.Kind != "vm" {
		return nil, nil
	}
	v, err := load(ctx, r)
	if errs.Is(err, errs.NotFound) {
		return nil, nil // the step itself says so
	}
	return v.Intent.NodeID, err
}
