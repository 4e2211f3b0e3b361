package pgtx_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// shelf is a table of words.
func shelf(t *testing.T) (context.Context, *pgxpool.Pool, func() []string) {
	t.Helper()
	ctx, db := t.Context(), storetest.New(t)
	if _, err := db.Owner.Exec(ctx, "CREATE TABLE words (word text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	return ctx, db.Owner, func() []string {
		rows, err := db.Owner.Query(ctx, "SELECT word FROM words ORDER BY word")
		if err != nil {
			t.Fatal(err)
		}
		words, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return words
	}
}

const insert = "INSERT INTO words VALUES ($1)"

// What is put off happens, in its order, before what follows is answered; savepoints
// take back what was sent and what was not.
func TestLater(t *testing.T) {
	ctx, db, words := shelf(t)
	add := func(to pgtx.DB, word string) {
		t.Helper()
		if _, err := to.Exec(ctx, insert, word); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
	}
	count := func(tx pgx.Tx) (n int) {
		t.Helper()
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM words").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	err := pgtx.Run(ctx, db, func(tx pgx.Tx) error {
		add(pgtx.Later(tx), "a")
		if n := count(tx); n != 1 {
			t.Errorf("%d words after the first", n)
		}
		for _, look := range []bool{false, true} {
			point, err := tx.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			add(pgtx.Later(point), "taken back")
			if look {
				if n := count(point); n != 2 {
					t.Errorf("%d words within the savepoint", n)
				}
			}
			if err := point.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
		}
		point, err := tx.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		add(point, "b")
		add(pgtx.Later(point), "c")
		if err := point.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := point.Commit(ctx); !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("a savepoint that ends twice: %v", err)
		}
		add(pgtx.Later(tx), "d")
		return nil
	})
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, words()); err != nil || diff != "" {
		t.Errorf("%v, words (-want +got):\n%s", err, diff)
	}
}

// An error of what was put off is told by what it is sent with, and nothing of the
// transaction happens. A transaction that asks for nothing sends nothing.
func TestLaterFails(t *testing.T) {
	ctx, db, words := shelf(t)
	again := func(tx pgx.Tx) { _, _ = pgtx.Later(tx).Exec(ctx, insert, nil) }
	for what, fn := range map[string]func(tx pgx.Tx) error{
		"the commit": func(pgx.Tx) error { return nil },
		"a query": func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "SELECT 1")
			if err == nil {
				rows.Close()
			}
			return errors.Join(err, rows.Err())
		},
		"a row":       func(tx pgx.Tx) error { return tx.QueryRow(ctx, "SELECT 1").Scan(new(int)) },
		"a statement": func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insert, "more"); return err },
		"a script":    func(tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT 1; SELECT 2"); return err },
		"a copy": func(tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"words"}, []string{"word"}, pgx.CopyFromRows([][]any{{"copied"}}))
			return err
		},
		"a batch": func(tx pgx.Tx) error {
			var b pgx.Batch
			b.Queue(insert, "batched")
			return tx.SendBatch(ctx, &b).Close()
		},
	} {
		err := pgtx.Run(ctx, db, func(tx pgx.Tx) error {
			if _, err := pgtx.Later(tx).Exec(ctx, insert, "before"); err != nil {
				t.Errorf("%s: at once: %v", what, err)
			}
			again(tx)
			return fn(tx)
		})
		if err == nil || errs.CodeOf(err) != errs.Internal {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := pgtx.Run(ctx, db, func(pgx.Tx) error { return nil }); err != nil {
		t.Errorf("nothing at all: %v", err)
	}
	if left := words(); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if n := db.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections are not given back", n)
	}
}

// A violation that only the commit finds, and a script, which has several statements.
func TestCommitRefused(t *testing.T) {
	ctx, db, words := shelf(t)
	err := pgtx.Run(ctx, db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO words VALUES ('a'); INSERT INTO words VALUES ('a')")
		return err
	})
	if !errs.Is(err, errs.AlreadyExists) || len(words()) > 0 {
		t.Errorf("%v; %q", err, words())
	}
}

// A connection that ends under the commit leaves it open whether that happened.
func TestCommitCut(t *testing.T) {
	ctx, db, words := shelf(t)
	err := pgtx.Run(ctx, db, func(tx pgx.Tx) error {
		_, _ = pgtx.Later(tx).Exec(ctx, insert, "a")
		_, _ = pgtx.Later(tx).Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		return nil
	})
	if !errors.Is(err, pgtx.ErrCommitUnknown) || !errs.Is(err, errs.DBUnavailable) || len(words()) > 0 {
		t.Errorf("%v; %q", err, words())
	}
}
