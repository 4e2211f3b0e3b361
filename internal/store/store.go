package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Store reads and writes through the application's database role. It is safe
// for concurrent use. Its one state is reports on their way into the database.
type Store struct {
	pool    *pgxpool.Pool
	q       *query.Queries
	reports reports
}

// New makes a store of a pool of the application's role.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool, q: query.New(pool)} }

// Pool is the application's pool, for the machinery that has tables of its own.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Tx is a transaction with the store's writes on it.
type Tx struct {
	pgx.Tx
	// Now is the time at which what it records is said to happen, the database's; zero
	// until an object was read under its lock.
	Now time.Time
	// Jobs is how many jobs it records, Begun how many of them have somebody who drives
	// them.
	Jobs, Begun int
	q           *query.Queries
	after       []func(committed bool)
	ends        bool
}

// On puts the store's writes on a transaction that someone else began, such as a
// workflow's.
func On(tx pgx.Tx) *Tx { return &Tx{Tx: tx, q: query.New(tx)} }

// Unwrap is the transaction beneath the store's writes.
func (t *Tx) Unwrap() pgx.Tx { return t.Tx }

// later is for statements whose errors may come with what is sent next.
func (t *Tx) later() *query.Queries { return query.New(pgtx.Later(t.Tx)) }

// InTx runs fn in a transaction. One that loses a race is run again, so fn does
// nothing that matters outside of it.
func (s *Store) InTx(ctx context.Context, fn func(*Tx) error) error {
	var last *Tx
	err := pgtx.Run(ctx, s.pool, func(tx pgx.Tx) error {
		last.ended(false)
		last = On(tx)
		last.ends = true
		return fn(last)
	})
	last.ended(err == nil)
	return err
}

// Ends tells whether what is given to After is called: not of a transaction that someone
// else began.
func (t *Tx) Ends() bool { return t.ends }

// After has fn called when the transaction of Store.InTx has ended: committed, or
// not, or nobody knows.
func (t *Tx) After(fn func(committed bool)) { t.after = append(t.after, fn) }

func (t *Tx) ended(committed bool) {
	if t == nil {
		return
	}
	for _, fn := range t.after {
		fn(committed)
	}
}

// one maps the error of a query for one row: no row becomes a not-found that
// names the object.
func one(err error, what, name string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return NotFound(what, name)
	}
	return pgtx.Map(err)
}

// NotFound is the one answer for an object that is missing and for one the
// caller may not see.
func NotFound(what, name string) error {
	return errs.New(errs.NotFound, "there is no %s %q", what, errs.Clip(name))
}

// taken maps a unique violation on a name to a refusal that names it.
func taken(err error, constraint, what, name string) error {
	if pgtx.Unique(err, constraint) {
		return errs.New(errs.AlreadyExists, "there is already a %s named %q", what, name).
			At(errs.Field{Pointer: "/name", Message: "is taken", Got: name}).Because(err)
	}
	return pgtx.Map(err)
}
