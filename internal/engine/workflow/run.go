package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// UndoSuffix is appended to a step's name in Run.Step while it is undone, so
// that (operation, step, attempt) never means two different commands to a host.
const UndoSuffix = "/undo"

// ErrClaimLost says that another server, or a later claim of this one, holds
// the job: nothing was written, and the step must end.
var ErrClaimLost = errors.New("workflow: the claim on this job is lost")

// Target is the object a job is about.
type Target struct {
	Kind string // "vm"
	ID   id.ID
	Name string
}

// Job is what a step knows of its job.
type Job struct {
	// ID is the operation id of every command.
	ID        id.ID
	Kind      string
	ProjectID *id.ID
	Target    Target
	OpSeq     int64
	CreatedBy string
	RequestID string
}

// FirstAttempt is the Attempt of who was the first to have a job.
const FirstAttempt = 1

// Run is one execution of a step.
type Run[E any] struct {
	// Env is the flow's environment.
	Env E
	// Job is the job this step belongs to.
	Job Job
	// Attempt is the fence of the claim: it rises with each claim, and a host
	// refuses a lower one.
	Attempt int64
	// Step is the step's name, with UndoSuffix while it is undone; empty in Finish.
	Step string
	// Log carries job, kind and step.
	Log *slog.Logger

	claim *claim
}

func newRun[E any](c *claim, env E, step string) *Run[E] {
	return &Run[E]{
		Env: env, Job: c.job, Attempt: c.fence, Step: step, claim: c,
		Log: c.log.With("step", step),
	}
}

// Params decodes the job's parameters into dst.
func (r *Run[E]) Params(dst any) error {
	if err := json.Unmarshal(r.claim.params, dst); err != nil {
		return errs.New(errs.Internal, "the parameters of job %s (%s) cannot be read", r.Job.ID, r.Job.Kind).Because(err)
	}
	return nil
}

// Output gives the output of an earlier step. In an undo, and in Finish after
// a failure, a step that never completed has none: ok is false.
func Output[T, E any](r *Run[E], step string) (out T, ok bool, err error) {
	raw, ok := r.claim.outputs[step]
	if !ok {
		return out, false, nil
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, false, errs.New(errs.Internal, "the output of step %s of job %s cannot be read", step, r.Job.ID).Because(err)
	}
	return out, true, nil
}

// MustOutput gives the output of a step that is known to be done.
func MustOutput[T, E any](r *Run[E], step string) (T, error) {
	out, ok, err := Output[T](r, step)
	if err == nil && !ok {
		err = errs.New(errs.Internal, "step %s of job %s has no output", step, r.Job.ID)
	}
	return out, err
}

// InTx runs fn in a transaction that first locks the claim's row: while fn
// runs nobody else can claim the job, and when the claim is no longer ours fn
// is not run and the error is ErrClaimLost. A deadlock or serialization failure
// runs fn again, a few times.
func (r *Run[E]) InTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return r.claim.inTx(ctx, fn)
}

// Seen is what the transaction that accepts the job has read of its target; nil
// unless this step runs in that transaction.
func (r *Run[E]) Seen() any { return r.claim.seen }

// Keep remembers something for the steps that follow, as long as this executor has the
// job: one that takes it over finds nothing, and reads it anew.
func (r *Run[E]) Keep(v any) { r.claim.kept = v }

// Kept is what an earlier step of the job kept, or nil.
func (r *Run[E]) Kept() any { return r.claim.kept }

// Accepting is the transaction that accepts the job; nil unless this step runs in
// it. Such a step takes no other connection: others wait for this one's.
func (r *Run[E]) Accepting() pgx.Tx { return r.claim.accepting }

// Progress reports how far the current step is, in percent. It is rounded into
// the job's progress; an unchanged figure writes nothing.
func (r *Run[E]) Progress(ctx context.Context, percent int) error {
	return r.claim.reportProgress(ctx, min(max(percent, 0), 100))
}

// String names the run in errors and logs.
func (r *Run[E]) String() string {
	return fmt.Sprintf("job %s (%s) step %s attempt %d", r.Job.ID, r.Job.Kind, r.Step, r.Attempt)
}
