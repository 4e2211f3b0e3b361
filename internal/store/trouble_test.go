package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Transactions that deadlock are run again, and all succeed.
func TestDeadlockIsRunAgain(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 4, unit.GiB, unit.GiB), b.node("n2", 4, unit.GiB, unit.GiB)
	var wg sync.WaitGroup
	for i := range 6 {
		order := []string{n1.Name, n2.Name}
		if i%2 == 1 {
			order = []string{n2.Name, n1.Name}
		}
		wg.Go(func() {
			err := b.InTx(b.ctx, func(t *store.Tx) error {
				for _, name := range order {
					if _, err := t.NodeGet(b.ctx, name); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// lossy is a connection that sends a commit and loses the answer.
type lossy struct {
	net.Conn
	lost *atomic.Bool
}

func (c lossy) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("commit")) {
		c.lost.Store(true)
	}
	return c.Conn.Write(p)
}

func (c lossy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.lost.Load() {
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// A commit whose answer is lost may have happened, as this one has: it is told
// so, and the transaction is not run again.
func TestCommitUnknown(t *testing.T) {
	b := newBench(t)
	cfg := b.db.App.Config().Copy()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return lossy{c, &atomic.Bool{}}, err
	}
	pool, err := pgxpool.NewWithConfig(b.ctx, cfg)
	b.must(err)
	defer pool.Close()
	runs := 0
	err = store.New(pool).InTx(b.ctx, func(t *store.Tx) error {
		runs++
		_, err := t.Exec(b.ctx, "INSERT INTO organizations (id, name) VALUES (gen_random_uuid(), 'x')")
		return err
	})
	wantCode(t, err, errs.DBUnavailable)
	if runs != 1 || !errors.Is(err, pgtx.ErrCommitUnknown) {
		t.Errorf("ran %d times: %v", runs, err)
	}
	var there int
	for there == 0 && b.ctx.Err() == nil { // the server may still be about it
		b.must(b.db.App.QueryRow(b.ctx, "SELECT count(*) FROM organizations WHERE name = 'x'").Scan(&there))
	}
	if there != 1 {
		t.Errorf("%d rows", there)
	}
}

func TestReadOnly(t *testing.T) {
	b := newBench(t)
	err := b.InTx(b.ctx, func(t *store.Tx) error {
		if _, err := t.Exec(b.ctx, "SET TRANSACTION READ ONLY"); err != nil {
			return err
		}
		_, err := t.Exec(b.ctx, "DELETE FROM events")
		return err
	})
	wantCode(t, err, errs.DBUnavailable)
}
