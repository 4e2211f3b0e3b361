// Package pgtx runs transactions and gives PostgreSQL's errors their meaning.
//
// A transaction that lost a race (deadlock, serialization failure) is run
// again, a few times: nothing of it happened. One whose commit was sent and whose
// answer was lost is not: it may have happened, and only the caller's operation
// id can tell. It becomes errs.DBUnavailable caused by ErrCommitUnknown.
package pgtx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// ErrCommitUnknown says that a commit was sent and its answer never came.
var ErrCommitUnknown = errors.New("pgtx: nobody knows whether the transaction committed")

// tries of a transaction that loses races.
const tries = 5

// Beginner is a pool or a connection.
type Beginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

// Run runs fn in a transaction and commits it. fn may run again when the
// transaction lost a race, so it does nothing outside of tx that matters.
func Run(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	var err error
	for n := range tries {
		if err = once(ctx, db, fn); !LostRace(err) {
			return Map(err)
		}
		// those who lost together must not meet again
		if pause(ctx, n) != nil {
			break
		}
	}
	return errs.New(errs.DBUnavailable, "the database is too busy: this change lost against others %d times; try again", tries).Because(err)
}

// pause waits a while after the n-th loss, from 0: 16 ms at most, then twice that.
func pause(ctx context.Context, n int) error {
	return clock.System{}.Sleep(ctx, rand.N(16*time.Millisecond<<n)) //nolint:gosec // it only keeps losers apart
}

// Again runs a single statement, and runs it again when it lost a race.
func Again(fn func() error) error {
	var err error
	for range tries {
		if err = fn(); !LostRace(err) {
			return Map(err)
		}
	}
	return Map(err)
}

func once(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	tx, err := begin(ctx, db)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// after a commit this does nothing; when ctx has ended pgx drops the connection
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return commitFailed(err)
	}
	return nil
}

// commitFailed: an error that the server reports, and a commit that turned into
// a rollback, mean that nothing happened; anything else leaves it open.
func commitFailed(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && !severed(pg.Code) {
		return fmt.Errorf("commit: %w", err)
	}
	// pgconn.SafeToRetry is of no use here: a connection that breaks between a
	// commit and its answer is reported as "conn closed" and called safe
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return fmt.Errorf("commit: %w", err)
	}
	return errs.New(errs.DBUnavailable, "the connection to the database broke during a commit: the change may or may not have been made").
		Because(errors.Join(ErrCommitUnknown, err))
}

// LostRace tells whether a transaction failed for no fault of its own and is worth
// another run: a deadlock, or a serialization failure.
func LostRace(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// severed: the server ended the connection, whatever it was doing.
func severed(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03", "57P05":
		return true
	}
	return code[:2] == "08"
}

// Map gives a PostgreSQL error its code: AlreadyExists for a unique violation,
// DBUnavailable for whatever passes by itself or by an operator's hand
// (connection trouble, failover, read-only, disk full, too busy). Errors that
// have a code, and those of the context, stay as they are.
func Map(err error) error {
	if err == nil {
		return nil
	}
	var coded *errs.Error
	if errors.As(err, &coded) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return mapServer(pg, err)
	}
	if away(err) {
		return errs.New(errs.DBUnavailable, "the database cannot be reached; try again").Because(err)
	}
	return err
}

func mapServer(pg *pgconn.PgError, err error) error {
	switch {
	case pg.Code == "23505":
		return errs.New(errs.AlreadyExists, "an object of that name or id exists already").Because(err)
	case pg.Code == "53100":
		return errs.New(errs.DBUnavailable, "the database's disk is full: nothing was changed").Because(err)
	case pg.Code == "25006":
		return errs.New(errs.DBUnavailable, "the database is read-only just now; try again").Because(err)
	case severed(pg.Code), pg.Code[:2] == "53", pg.Code[:2] == "58", pg.Code == "55P03", pg.Code == "57014", LostRace(err):
		return errs.New(errs.DBUnavailable, "the database cannot do this just now; try again").Because(err)
	}
	return err
}

// away tells whether the connection failed beneath the protocol.
func away(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// Unique tells whether err is a violation of the named unique constraint or index.
func Unique(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.ConstraintName == constraint
}

// Violates tells whether err is a violation of the named foreign key.
func Violates(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23503" && pg.ConstraintName == constraint
}
