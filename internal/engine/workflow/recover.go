package workflow

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Supersede ends a job without another step, as cancelled: what it was about has
// been settled otherwise. Nothing of it is undone, and its Finish does not run, so
// the caller releases what it holds, in the same transaction. One that has ended
// stays as it is.
func Supersede(ctx context.Context, tx pgx.Tx, which id.ID, why string) error {
	q := query.New(tx)
	n, err := q.SupersedeJob(ctx, query.SupersedeJobParams{ID: which, Message: why})
	if err != nil || n == 0 {
		return pgtx.Map(err)
	}
	return pgtx.Map(q.JobEvent(ctx, query.JobEventParams{ID: which}))
}

// RaiseFence makes the next claim of a job higher than an attempt that some host
// has seen.
func RaiseFence(ctx context.Context, tx pgx.Tx, which id.ID, attempt int64) error {
	return pgtx.Map(query.New(tx).RaiseFence(ctx, query.RaiseFenceParams{ID: which, Attempt: attempt}))
}
