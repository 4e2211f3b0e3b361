package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/migrations"
)

// Migrate brings the database of the owner's URL to this program's schema. Safe
// to call from several servers at once; a newer database is refused by name.
func Migrate(ctx context.Context, ownerURL string) error { return migrations.Up(ctx, ownerURL) }

// settings of every connection, unless the URL says otherwise. A transaction
// that hangs must let go of its locks, and a statement that waits for one must
// end in an answer: both become errs.DBUnavailable.
var settings = map[string]string{
	"application_name":                    "novacron",
	"timezone":                            "UTC",
	"lock_timeout":                        "10s",
	"statement_timeout":                   "30s",
	"idle_in_transaction_session_timeout": "60s",
	// compiling a statement takes longer than any of ours runs
	"jit": "off",
}

// Open connects as the application and checks that the schema is one this
// program can work with. The caller closes the store's Pool.
func Open(ctx context.Context, appURL string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(appURL)
	if err != nil {
		return nil, fmt.Errorf("read the database's URL: %w", err)
	}
	for k, v := range settings {
		if _, given := cfg.ConnConfig.RuntimeParams[k]; !given {
			cfg.ConnConfig.RuntimeParams[k] = v
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	if err := migrations.Check(ctx, pool); err != nil {
		pool.Close()
		return nil, pgtx.Map(err)
	}
	return New(pool), nil
}
