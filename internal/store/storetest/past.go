package storetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Past is what a database held at one moment.
type Past struct {
	db     *DB
	tables []string
}

// Save keeps all rows of now, beside the schema: a backup that takes a moment.
func (db *DB) Save(tb testing.TB) *Past {
	tb.Helper()
	p := &Past{db: db}
	rows, err := db.Owner.Query(tb.Context(), `SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'goose_db_version'`)
	if err == nil {
		p.tables, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	for _, t := range p.tables {
		if err == nil {
			_, err = db.Owner.Exec(tb.Context(), fmt.Sprintf("CREATE TABLE past_%s AS TABLE %s", t, t))
		}
	}
	if err != nil {
		tb.Fatalf("storetest: save: %v", err)
	}
	return p
}

// PutBack makes the database what it was, as a restored backup or a replica that
// lagged behind would; mark is called in the end, with the owner's connection.
func (p *Past) PutBack(tb testing.TB, mark func(context.Context, *pgx.Conn) error) {
	tb.Helper()
	ctx := tb.Context()
	url, err := server()
	if err != nil {
		tb.Fatalf("storetest: %v", err)
	}
	conn, err := pgx.Connect(ctx, url("", p.db.Name)) // its triggers do not fire
	if err == nil {
		defer func() { _ = conn.Close(ctx) }()
		err = p.putBack(ctx, conn)
	}
	if err == nil && mark != nil {
		_, err = conn.Exec(ctx, "SET session_replication_role = DEFAULT")
	}
	if err == nil && mark != nil {
		err = mark(ctx, conn)
	}
	if err != nil {
		tb.Fatalf("storetest: put back: %v", err)
	}
}

func (p *Past) putBack(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "SET session_replication_role = replica"); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "TRUNCATE "+strings.Join(p.tables, ", ")); err != nil {
			return err
		}
		for _, t := range p.tables {
			if _, err := tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s OVERRIDING SYSTEM VALUE SELECT * FROM past_%s", t, t)); err != nil {
				return err
			}
		}
		return nil
	})
}
