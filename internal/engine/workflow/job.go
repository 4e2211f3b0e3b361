package workflow

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// NewJob is a job to be.
type NewJob struct {
	// ID is made by the caller, so that holds and answers can name it.
	ID        id.ID
	Kind      string
	ProjectID *id.ID
	Target    Target
	OpSeq     int64
	// Params is kept as JSON and read with Run.Params.
	Params any
	// Cancellable: may it be cancelled before its first step begins? Give the
	// first step's flag (Flow.FirstCancellable).
	Cancellable bool
	CreatedBy   string
	RequestID   string
	// Seen is what the caller read of the target, under its lock, in the same
	// transaction; head steps find it with Run.Seen. May be nil.
	Seen any
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// FirstCancellable is what NewJob.Cancellable of this flow's jobs should be.
func (f Flow[E]) FirstCancellable() bool { return f.Steps[0].Cancellable }

// Enqueue inserts the job inside the caller's transaction. Nudge the executor
// after the commit.
func Enqueue(ctx context.Context, tx pgx.Tx, j NewJob) error {
	params, err := json.Marshal(j.Params)
	if err != nil {
		return errs.New(errs.Internal, "the parameters of a %s job cannot be written", j.Kind).Because(err)
	}
	return pgtx.Map(query.New(tx).InsertJob(ctx, query.InsertJobParams{
		ID: j.ID, ProjectID: j.ProjectID, Kind: j.Kind,
		TargetKind: j.Target.Kind, TargetID: j.Target.ID, TargetName: j.Target.Name,
		Params: params, OpSeq: j.OpSeq, Cancellable: j.Cancellable, CreatedBy: j.CreatedBy, RequestID: j.RequestID,
	}))
}

// Cancel asks for a job to be cancelled. It is granted while the current step
// (or, between two, the next one) allows it; the job then unwinds and ends as
// cancelled. Otherwise the error is errs.NotCancellable, or errs.NotFound. To
// cancel twice is no error. Nudge the executor after the commit.
func Cancel(ctx context.Context, tx pgx.Tx, which id.ID) error {
	q := query.New(tx)
	n, err := q.CancelJob(ctx, which)
	if err != nil {
		return pgtx.Map(err)
	}
	if n == 1 {
		return pgtx.Map(q.JobEvent(ctx, query.JobEventParams{ID: which}))
	}
	state, err := stateOf(ctx, q, which)
	switch {
	case err != nil:
		return err
	case state == job.Cancelled:
		return nil
	case state == job.Unwinding:
		return errs.New(errs.NotCancellable, "job %s is already being undone", which)
	case state.Ended():
		return errs.New(errs.NotCancellable, "job %s has ended: it is %s", which, state)
	default:
		return errs.New(errs.NotCancellable, "job %s cannot be cancelled at its present step; wait for it", which)
	}
}

func stateOf(ctx context.Context, q *query.Queries, which id.ID) (job.State, error) {
	row, err := q.JobState(ctx, which)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errs.New(errs.NotFound, "there is no job %s", which)
	}
	return job.State(row.State), pgtx.Map(err)
}

// Retry lets a job that needs attention go on where it stood, forward or
// unwinding, with its count of failures at zero. Any other job is refused with
// errs.InvalidState. Nudge the executor after the commit.
func Retry(ctx context.Context, tx pgx.Tx, which id.ID) error {
	q := query.New(tx)
	n, err := q.RetryJob(ctx, which)
	if err != nil {
		return pgtx.Map(err)
	}
	if n == 0 {
		state, err := stateOf(ctx, q, which)
		if err != nil {
			return err
		}
		return errs.New(errs.InvalidState, "job %s is %s: only one that needs attention can be retried", which, state)
	}
	if err := q.ResetFailures(ctx, which); err != nil {
		return pgtx.Map(err)
	}
	return pgtx.Map(q.JobEvent(ctx, query.JobEventParams{ID: which}))
}

// Filter names jobs; empty fields match all.
type Filter struct {
	Jobs       []id.ID
	Kind       string
	TargetKind string
	Targets    []id.ID
	// Reason is a parked job's reason, exactly.
	Reason string
}

// Wake makes parked jobs run again now and gives the number of jobs that
// matched. A job whose step runs just now takes note: if the step parks, it is
// for no time. Nudge the executor after the commit.
func Wake(ctx context.Context, db Querier, f Filter) (int64, error) {
	woken, err := query.New(db).WakeJobs(ctx, query.WakeJobsParams{
		Jobs: f.Jobs, Targets: f.Targets, Kind: f.Kind, TargetKind: f.TargetKind, Reason: f.Reason,
	})
	return int64(len(woken)), pgtx.Map(err)
}
