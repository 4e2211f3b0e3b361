package pgtx

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pipeline is a transaction that sends its begin, its savepoints, its commit and what
// was put off by Later together with the next statement whose answer somebody needs.
// A round trip costs as much as a small statement, on both sides.
//
// The error of a statement that was put off is given by the one it is sent with.
type pipeline struct {
	conn   *pgxpool.Conn
	queued pgx.Batch
	points int
	sends  int
	done   bool
}

var _ pgx.Tx = (*pipeline)(nil)

func begin(ctx context.Context, db Beginner) (pgx.Tx, error) {
	pool, ok := db.(*pgxpool.Pool)
	if !ok {
		return db.BeginTx(ctx, pgx.TxOptions{})
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	p := &pipeline{conn: conn}
	p.queued.Queue("begin")
	return p, nil
}

// DB is what statements are run on.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Later gives a way to run statements on tx of which nobody wants to know how many
// rows they changed: each is sent with what comes next, at the latest the commit, and
// its error is told there.
func Later(tx pgx.Tx) DB {
	for {
		switch t := tx.(type) {
		case interface{ Unwrap() pgx.Tx }:
			tx = t.Unwrap()
		case interface{ queue(sql string, args ...any) }:
			return later{tx, t.queue}
		default:
			return tx
		}
	}
}

type later struct {
	pgx.Tx
	queue func(sql string, args ...any)
}

func (l later) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	l.queue(sql, args...)
	return pgconn.CommandTag{}, nil
}

func (p *pipeline) queue(sql string, args ...any) { p.queued.Queue(sql, args...) }

// send sends all that is queued and, last, a statement. The answers up to that are
// read; its own is to be read from what is returned, which is then to be closed.
func (p *pipeline) send(ctx context.Context, sql string, args ...any) (pgx.BatchResults, error) {
	if p.done {
		return nil, pgx.ErrTxClosed
	}
	p.queued.Queue(sql, args...)
	batch := p.take()
	results := p.conn.SendBatch(ctx, batch)
	for range batch.Len() - 1 {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // the error is the first one that happened
			return nil, err
		}
	}
	return results, nil
}

// take empties the queue for sending.
func (p *pipeline) take() *pgx.Batch {
	batch := p.queued
	p.queued = pgx.Batch{}
	p.sends++
	return &batch
}

// Exec implements pgx.Tx.
func (p *pipeline) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if len(args) == 0 { // perhaps several statements, which a batch cannot have
		if err := p.flush(ctx); err != nil {
			return pgconn.CommandTag{}, err
		}
	}
	if p.queued.Len() == 0 && !p.done {
		return p.conn.Exec(ctx, sql, args...)
	}
	return p.last(ctx, sql, args...)
}

// last sends a statement with all that is queued.
func (p *pipeline) last(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	results, err := p.send(ctx, sql, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	return tag, err
}

// Query implements pgx.Tx.
func (p *pipeline) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if p.queued.Len() == 0 && !p.done {
		return p.conn.Query(ctx, sql, args...)
	}
	results, err := p.send(ctx, sql, args...)
	if err != nil {
		return failed{err: err}, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close()
		return failed{err: err}, err
	}
	return &lastRows{rows, results}, nil
}

// QueryRow implements pgx.Tx.
func (p *pipeline) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if p.queued.Len() == 0 && !p.done {
		return p.conn.QueryRow(ctx, sql, args...)
	}
	results, err := p.send(ctx, sql, args...)
	if err != nil {
		return failed{err: err}
	}
	return lastRow{results.QueryRow(), results}
}

// lastRows are the rows of the last statement of a batch, which ends with them.
type lastRows struct {
	pgx.Rows
	results pgx.BatchResults
}

// Close implements pgx.Rows.
func (r *lastRows) Close() {
	r.Rows.Close()
	_ = r.results.Close() // an error of the rows is theirs to tell
}

// Next implements pgx.Rows: a reader that comes to the end need not close.
func (r *lastRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// lastRow is the row of the last statement of a batch.
type lastRow struct {
	row     pgx.Row
	results pgx.BatchResults
}

// Scan implements pgx.Row.
func (r lastRow) Scan(to ...any) error {
	err := r.row.Scan(to...)
	if cerr := r.results.Close(); err == nil {
		err = cerr
	}
	return err
}

// failed are the rows of a statement that was not run.
type failed struct {
	pgx.Rows
	err error
}

// Scan implements pgx.Row and pgx.Rows.
func (f failed) Scan(...any) error { return f.err }

// Close implements pgx.Rows.
func (f failed) Close() {}

// Next implements pgx.Rows.
func (f failed) Next() bool { return false }

// Err implements pgx.Rows.
func (f failed) Err() error { return f.err }

// flush sends what is queued.
func (p *pipeline) flush(ctx context.Context) error {
	if p.done {
		return pgx.ErrTxClosed
	}
	if p.queued.Len() == 0 {
		return nil
	}
	return p.conn.SendBatch(ctx, p.take()).Close()
}

// Begin implements pgx.Tx: a savepoint.
func (p *pipeline) Begin(context.Context) (pgx.Tx, error) {
	if p.done {
		return nil, pgx.ErrTxClosed
	}
	p.points++
	s := &savepoint{pipeline: p, name: fmt.Sprintf("sp_%d", p.points), at: p.queued.Len(), sends: p.sends}
	p.queue("savepoint " + s.name)
	return s, nil
}

// Commit implements pgx.Tx.
func (p *pipeline) Commit(ctx context.Context) error {
	if p.done {
		return pgx.ErrTxClosed
	}
	if p.sends == 0 && p.queued.Len() == 1 { // there is only a begin
		p.end()
		return nil
	}
	run := p.last
	if p.queued.Len() == 0 {
		run = p.conn.Exec
	}
	tag, err := run(ctx, "commit")
	if err == nil && tag.String() == "ROLLBACK" {
		err = pgx.ErrTxCommitRollback
	}
	if err == nil {
		p.end()
	}
	return err
}

// Rollback implements pgx.Tx.
func (p *pipeline) Rollback(ctx context.Context) error {
	if p.done {
		return pgx.ErrTxClosed
	}
	defer p.end()
	if p.sends == 0 {
		return nil
	}
	_, err := p.conn.Exec(ctx, "rollback")
	if err != nil {
		_ = p.conn.Conn().Close(ctx) // nobody knows what is still under way there
	}
	return err
}

func (p *pipeline) end() {
	p.done = true
	p.conn.Release()
}

// SendBatch implements pgx.Tx.
func (p *pipeline) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := p.flush(ctx); err != nil {
		return failedBatch{err: err}
	}
	return p.conn.SendBatch(ctx, b)
}

type failedBatch struct {
	pgx.BatchResults
	err error
}

// Exec implements pgx.BatchResults.
func (f failedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, f.err }

// Query implements pgx.BatchResults.
func (f failedBatch) Query() (pgx.Rows, error) { return failed{err: f.err}, f.err }

// QueryRow implements pgx.BatchResults.
func (f failedBatch) QueryRow() pgx.Row { return failed{err: f.err} }

// Close implements pgx.BatchResults.
func (f failedBatch) Close() error { return f.err }

// CopyFrom implements pgx.Tx.
func (p *pipeline) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, from pgx.CopyFromSource) (int64, error) {
	if err := p.flush(ctx); err != nil {
		return 0, err
	}
	return p.conn.CopyFrom(ctx, table, columns, from)
}

// Prepare implements pgx.Tx.
func (p *pipeline) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	return p.conn.Conn().Prepare(ctx, name, sql)
}

// LargeObjects implements pgx.Tx; there are none in our schema.
func (p *pipeline) LargeObjects() pgx.LargeObjects { return pgx.LargeObjects{} }

// Conn implements pgx.Tx.
func (p *pipeline) Conn() *pgx.Conn { return p.conn.Conn() }

// savepoint is a transaction within a pipeline.
type savepoint struct {
	*pipeline
	name  string
	at    int // its place in the queue
	sends int // that were before it
	ended bool
}

// Commit implements pgx.Tx.
func (s *savepoint) Commit(context.Context) error {
	if s.ended {
		return pgx.ErrTxClosed
	}
	s.ended = true
	s.queue("release savepoint " + s.name)
	return nil
}

// Rollback implements pgx.Tx.
func (s *savepoint) Rollback(ctx context.Context) error {
	if s.ended {
		return pgx.ErrTxClosed
	}
	s.ended = true
	if s.pipeline.sends == s.sends { // it was never made
		s.queued.QueuedQueries = s.queued.QueuedQueries[:s.at]
		return nil
	}
	s.queued = pgx.Batch{}
	_, err := s.conn.Exec(ctx, "rollback to savepoint "+s.name)
	return err
}
