// Package pgpool opens pools of connections to the cluster's database, each set up
// the one way ours are: a transaction that hangs lets go of its locks, a statement
// that waits for one ends in an answer (errs.DBUnavailable after pgtx.Map), and ids
// travel as their 16 bytes.
package pgpool

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Size is how many connections a server opens to its database, unless the URL says
// otherwise (pool_max_conns): PostgreSQL takes 100 by default, and a few servers
// share them. pgx's own default is one per CPU, which starves requests behind jobs.
const Size = 24

// settings of every connection, unless the URL says otherwise.
var settings = map[string]string{
	"application_name":  "novacron",
	"timezone":          "UTC",
	"lock_timeout":      "10s",
	"statement_timeout": "30s",
	// a frozen server would otherwise keep the rows it had locked, and with them their
	// jobs, from those who took its work over
	"idle_in_transaction_session_timeout": "5s",
	// compiling a statement takes longer than any of ours runs
	"jit": "off",
}

// Config reads a database's URL.
func Config(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database's URL: %w", err)
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = Size
	}
	for k, v := range settings {
		if _, given := cfg.ConnConfig.RuntimeParams[k]; !given {
			cfg.ConnConfig.RuntimeParams[k] = v
		}
	}
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		binaryIDs(c.TypeMap())
		return nil
	}
	return cfg, nil
}
