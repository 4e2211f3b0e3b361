package pgtx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestMap(t *testing.T) {
	pg := func(code string) error { return fmt.Errorf("insert: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		err  error
		want errs.Code
	}{
		{nil, ""},
		{pg("23505"), errs.AlreadyExists},
		{pg("53100"), errs.DBUnavailable}, // disk full
		{pg("53300"), errs.DBUnavailable}, // too many connections
		{pg("25006"), errs.DBUnavailable}, // read-only
		{pg("57P01"), errs.DBUnavailable}, // shut down by an operator
		{pg("08006"), errs.DBUnavailable},
		{pg("58030"), errs.DBUnavailable}, // I/O error
		{pg("40001"), errs.DBUnavailable},
		{pg("55P03"), errs.DBUnavailable},
		{pg("42P01"), errs.Internal}, // a fault of ours
		{pg("23514"), errs.Internal},
		{io.ErrUnexpectedEOF, errs.DBUnavailable},
		{errs.New(errs.VMBusy, "busy"), errs.VMBusy},
	} {
		if got := errs.CodeOf(pgtx.Map(c.err)); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
	}
	if err := pgtx.Map(context.Canceled); !errors.Is(err, context.Canceled) || errs.Is(err, errs.DBUnavailable) {
		t.Errorf("a cancelled request is %v", err)
	}
	_, err := pgx.Connect(context.Background(), "postgres:///x?host=/nonexistent")
	if !errs.Is(pgtx.Map(err), errs.DBUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}

// A race that is always lost ends in an answer.
func TestRunIsBounded(t *testing.T) {
	db, runs := storetest.New(t), 0
	err := pgtx.Run(context.Background(), db.App, func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(context.Background(), "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$")
		return err
	})
	if !errs.Is(err, errs.DBUnavailable) || runs != 5 {
		t.Errorf("%d runs, %v", runs, err)
	}
}
