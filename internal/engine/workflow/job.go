package workflow

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
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
