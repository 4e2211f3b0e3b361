package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Warm is what of a warm migration its flow needs.
type Warm struct {
	// CutoverAt is when it is to come to its end, nil while nobody has said so; by the clock of
	// Now, the database's.
	CutoverAt *time.Time
	Now       time.Time
	// Begun: have its rounds begun? Anew is how often they were begun again.
	Begun bool
	Anew  int
	// Since is for how long its turn has been.
	Since time.Duration
}

// MigrationWarm reads it.
func (s *Store) MigrationWarm(ctx context.Context, m id.ID) (Warm, error) {
	row, err := s.q.MigrationWarm(ctx, m)
	if err != nil {
		return Warm{}, one(err, "migration", m.String())
	}
	return Warm{CutoverAt: row.CutoverAt, Now: row.Now, Begun: row.Begun, Anew: int(row.Anew), Since: time.Duration(row.Seconds * float64(time.Second))}, nil
}

// MigrationCutover has a warm migration come to its end at a time, nil for now, and gives
// when that is. errs.InvalidState for what is no warm migration under way, or past that.
func (t *Tx) MigrationCutover(ctx context.Context, m id.ID, at *time.Time) (time.Time, error) {
	when, err := t.q.MigrationCutover(ctx, query.MigrationCutoverParams{ID: m, At: at})
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, errs.New(errs.InvalidState, "there is no warm migration under way that could be cut over")
	}
	if err != nil || when == nil {
		return time.Time{}, pgtx.Map(err)
	}
	return *when, nil
}
