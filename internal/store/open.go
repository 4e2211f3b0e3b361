package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgpool"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/migrations"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Migrate brings the database of the owner's URL to this program's schema. Safe
// to call from several servers at once; a newer database is refused by name.
func Migrate(ctx context.Context, ownerURL string) error {
	return pgtx.Map(migrations.Up(ctx, ownerURL))
}

// Open connects as the application and checks that the schema is one this
// program can work with. The caller closes the store's Pool.
func Open(ctx context.Context, appURL string) (*Store, error) {
	cfg, err := pgpool.Config(appURL)
	if err != nil {
		return nil, errs.New(errs.InvalidField, "the database's URL is not understood").Because(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	if err := migrations.Check(ctx, pool); err != nil {
		pool.Close()
		return nil, pgtx.Map(err)
	}
	return New(pool), nil
}
