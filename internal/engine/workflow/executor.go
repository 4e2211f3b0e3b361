package workflow

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Membership is what an executor asks of the servers' membership: lease.Member,
// or a fake in proofs.
type Membership interface {
	// ID is this server's id.
	ID() id.ID
	// Dead tells whether another server's claims may be taken over.
	Dead(server id.ID) bool
	// Bind gives a context that ends when this server may no longer act.
	Bind(ctx context.Context) (context.Context, context.CancelFunc)
}

// Options of an Executor.
type Options struct {
	Pool    *pgxpool.Pool
	Members Membership
	Clock   clock.Clock
	Log     *slog.Logger
	Flows   []Bound
	// Workers bounds how many jobs run at once; 64 by default.
	Workers int
	// Poll is how often the database is asked for work without a nudge; 1 s by
	// default, with jitter.
	Poll time.Duration
	// Backoff between failures of a step; DefaultBackoff by default.
	Backoff Backoff
	// MaxFailures of one step in a row, worth retrying, before the job unwinds; 9 by
	// default (about 30 s with DefaultBackoff).
	MaxFailures int
	// MaxFailuresAfter is the same at and after the point of no return, where the
	// job then stops as needs_attention; 10 by default.
	MaxFailuresAfter int
	// Committed is called after each commit that inserted events: the sequencer's
	// nudge. May be nil.
	Committed func()
	// Fault injects faults, for tests; nil otherwise.
	Fault func(Point) error
	// Twice runs every Do and Undo twice, for tests.
	Twice bool
}

// Executor drives jobs. Make one per server with New.
type Executor struct{ opts Options }

// New makes an executor.
func New(opts Options) *Executor { return &Executor{opts: opts} }

// Run claims and drives jobs until ctx ends; then it stops the steps under way
// and releases their claims, so that another server goes on at once.
func (e *Executor) Run(ctx context.Context) error { panic("workflow: not built yet") }

// Nudge makes the executor look for work now: call it after a commit that
// enqueued, cancelled, retried or woke a job. It never blocks.
func (e *Executor) Nudge() {}

// Enqueue inserts the job inside the caller's transaction. Nudge the executor
// after the commit.
func Enqueue(ctx context.Context, tx pgx.Tx, j NewJob) error { panic("workflow: not built yet") }

// Cancel asks for a job to be cancelled. It is granted while the current step
// (or, between two, the next one) allows it; the job then unwinds and ends as
// cancelled. Otherwise the error is errs.NotCancellable, or errs.NotFound. To
// cancel twice is no error.
func Cancel(ctx context.Context, tx pgx.Tx, job id.ID) error { panic("workflow: not built yet") }

// Retry lets a job that needs attention go on where it stood, forward or
// unwinding, with its count of failures at zero.
func Retry(ctx context.Context, tx pgx.Tx, job id.ID) error { panic("workflow: not built yet") }

// Wake makes parked jobs run again now and gives their number. Nudge the
// executor after the commit.
func Wake(ctx context.Context, db Querier, f Filter) (int64, error) {
	panic("workflow: not built yet")
}

// FirstCancellable is what NewJob.Cancellable of this flow's jobs should be.
func (f Flow[E]) FirstCancellable() bool { return f.Steps[0].Cancellable }

type claim struct {
	job     Job
	fence   int64
	params  json.RawMessage
	outputs map[string]json.RawMessage
	log     *slog.Logger
}

func (c *claim) inTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	panic("workflow: not built yet")
}

func (c *claim) reportProgress(ctx context.Context, percent int) error {
	panic("workflow: not built yet")
}
