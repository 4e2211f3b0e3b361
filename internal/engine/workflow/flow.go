package workflow

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Flow is a workflow: named steps that run in order, over an environment E, the
// narrow set of things the steps may use.
type Flow[E any] struct {
	// Name is the job's kind, such as "vm.create". It is stored; renaming a flow
	// or a step orphans jobs under way.
	Name string
	// Steps run in order.
	Steps []Step[E]
	// Finish runs in the transaction that ends the job: it releases holds and
	// inserts events. It is not run when a job stops as needs_attention. It may
	// run again when that transaction fails, so it does nothing outside of tx.
	Finish func(ctx context.Context, tx pgx.Tx, run *Run[E], out Outcome) error
	// FinishAll is what Finish would do for each of several jobs that have succeeded,
	// at once; nil where they cannot end together.
	FinishAll func(ctx context.Context, tx pgx.Tx, runs []*Run[E]) error
}

// Step is one step of a flow.
type Step[E any] struct {
	// Name is the journal's word for the step, unique within the flow.
	Name string
	// Do does it and gives an output that is kept as JSON for later steps. It is
	// idempotent: it may run again after it happened in part or in full.
	Do func(ctx context.Context, run *Run[E]) (any, error)
	// Undo takes back what Do did, fully, in part or not at all; nil when there is
	// nothing to take back.
	Undo func(ctx context.Context, run *Run[E]) error
	// NoReturn marks the point of no return: once this step has begun the job never
	// unwinds.
	NoReturn bool
	// InDatabase: is all that Do does in the database, written by Run.InTx? Then
	// that the step began need not wait for the disk: what it does takes the entry
	// along, and if it is lost, so is that. At the head of a flow it may run in the
	// transaction that accepts the job (Executor.Accept, Run.Accepting).
	InDatabase bool
	// Cancellable: may the job be cancelled while this step is the current one? Not
	// allowed at or after a NoReturn step.
	Cancellable bool
}

// Outcome is how a job ended.
type Outcome struct {
	// State is succeeded, failed or cancelled.
	State job.State
	// Err is why it failed; nil otherwise.
	Err *errs.Error
}

// Succeeded tells whether every step was done.
func (o Outcome) Succeeded() bool { return o.State == job.Succeeded }

// Bound is a flow tied to its environment, as an Executor takes it.
type Bound struct {
	name   string
	steps  []boundStep
	finish func(ctx context.Context, tx pgx.Tx, c *claim, out Outcome) error
	// finishAll may be nil
	finishAll func(ctx context.Context, tx pgx.Tx, all []*claim) error
}

// Name is the flow's name.
func (b Bound) Name() string { return b.name }

type boundStep struct {
	name        string
	do          func(ctx context.Context, c *claim) (any, error)
	undo        func(ctx context.Context, c *claim) error
	noReturn    bool
	inDatabase  bool
	cancellable bool
}

// Bind ties a flow to its environment. It panics on a flow that can not be
// right, since flows are written by us and bound at start.
func Bind[E any](f Flow[E], env E) Bound {
	if err := f.Validate(); err != nil {
		panic(err)
	}
	b := Bound{name: f.Name}
	for _, s := range f.Steps {
		bs := boundStep{name: s.Name, noReturn: s.NoReturn, inDatabase: s.InDatabase, cancellable: s.Cancellable}
		bs.do = func(ctx context.Context, c *claim) (any, error) {
			return s.Do(ctx, newRun(c, env, s.Name))
		}
		if s.Undo != nil {
			bs.undo = func(ctx context.Context, c *claim) error {
				return s.Undo(ctx, newRun(c, env, s.Name+UndoSuffix))
			}
		}
		b.steps = append(b.steps, bs)
	}
	b.finish = func(ctx context.Context, tx pgx.Tx, c *claim, out Outcome) error {
		if f.Finish == nil {
			return nil
		}
		return f.Finish(ctx, tx, newRun(c, env, ""), out)
	}
	if f.FinishAll != nil {
		b.finishAll = func(ctx context.Context, tx pgx.Tx, all []*claim) error {
			runs := make([]*Run[E], 0, len(all))
			for _, c := range all {
				runs = append(runs, newRun(c, env, ""))
			}
			return f.FinishAll(ctx, tx, runs)
		}
	}
	return b
}

// Validate tells what is wrong with the flow's shape.
func (f Flow[E]) Validate() error {
	if f.Name == "" || len(f.Steps) == 0 {
		return fmt.Errorf("workflow: a flow has a name and steps (%q)", f.Name)
	}
	seen, noReturn := map[string]bool{}, false
	for _, s := range f.Steps {
		noReturn = noReturn || s.NoReturn
		if s.Name == "" || seen[s.Name] {
			return fmt.Errorf("workflow: %s: step name %q is empty or used twice", f.Name, s.Name)
		}
		if err := s.validate(noReturn); err != nil {
			return fmt.Errorf("workflow: %s: step %s %w", f.Name, s.Name, err)
		}
		seen[s.Name] = true
	}
	return nil
}

func (s Step[E]) validate(noReturn bool) error {
	switch {
	case s.Do == nil:
		return errors.New("does nothing")
	case noReturn && s.Cancellable:
		return errors.New("is past the point of no return and cannot be cancelled")
	case noReturn && s.Undo != nil:
		return errors.New("is past the point of no return and is never undone")
	}
	return nil
}
