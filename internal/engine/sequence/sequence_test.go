package sequence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/sequence"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// serve runs a sequencer as one server does; lead also numbers.
func serve(ctx context.Context, t *testing.T, db *storetest.DB, lead bool, set func(*sequence.Options)) *sequence.Sequencer {
	t.Helper()
	o := sequence.Options{Pool: db.App, Clock: clock.System{}}
	if set != nil {
		set(&o)
	}
	s := sequence.New(o)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	if lead {
		wg.Go(func() { s.Lead(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

const insert = `INSERT INTO events (kind, object_kind, object_id, object_name) VALUES ($1, 'thing', gen_random_uuid(), $2)`

func add(ctx context.Context, t *testing.T, db *storetest.DB, kind, name string) {
	t.Helper()
	if _, err := db.App.Exec(ctx, insert, kind, name); err != nil {
		t.Fatal(err)
	}
}

func next(ctx context.Context, t *testing.T, s *sequence.Subscription) []event.Event {
	t.Helper()
	for {
		events, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > 0 {
			return events
		}
	}
}

func TestOrderAndResume(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	s := serve(ctx, t, db, true, func(o *sequence.Options) { o.Window = 4 })
	for i := range 20 {
		add(ctx, t, db, "test", fmt.Sprint(i))
	}
	s.Nudge()
	sub, err := s.Hub().Subscribe(ctx, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 20 {
		for _, e := range next(ctx, t, sub) {
			if e.Seq != int64(len(got)+1) {
				t.Fatalf("number %d after %d", e.Seq, len(got))
			}
			got = append(got, e.ObjectName)
		}
	}
	resumed, err := s.Hub().Subscribe(ctx, 17, func(e *event.Event) bool { return e.ObjectName != "18" })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for len(names) < 2 {
		for _, e := range next(ctx, t, resumed) {
			names = append(names, e.ObjectName)
		}
	}
	if !slices.Equal(names, []string{"17", "19"}) || resumed.Position() != 20 {
		t.Errorf("resumed with %v at %d", names, resumed.Position())
	}
	if _, err := s.Hub().Subscribe(ctx, 21, nil); !errors.Is(err, sequence.ErrAhead) {
		t.Errorf("a number never given: %v", err)
	}
	if _, err := db.App.Exec(ctx, "DELETE FROM events WHERE seq <= 10"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Hub().Subscribe(ctx, 9, nil); !errors.Is(err, sequence.ErrTooOld) {
		t.Errorf("a number no longer kept: %v", err)
	}
	if _, err := s.Hub().Subscribe(ctx, 10, nil); err != nil {
		t.Errorf("the oldest number kept: %v", err)
	}
	latest, err := s.Hub().Subscribe(ctx, sequence.Latest, nil)
	if err != nil || latest.Position() != 20 {
		t.Errorf("latest: %v", err)
	}
}

// Writers that commit late or never, two servers that both number, nudges that
// get lost, readers on both servers that come, lag and resume: every reader sees
// every committed event once, in one order.
func TestNoGapNoDuplicate(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	servers := []*sequence.Sequencer{
		serve(ctx, t, db, true, func(o *sequence.Options) { o.Window = 32; o.Poll = 20 * time.Millisecond }),
		serve(ctx, t, db, true, func(o *sequence.Options) { o.Window = 8; o.Poll = 20 * time.Millisecond }),
	}
	const writers, each = 8, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := pgtx.Run(ctx, db.App, func(tx pgx.Tx) error {
					for n := range 3 {
						if _, err := tx.Exec(ctx, insert, "test", fmt.Sprintf("%d.%d.%d", w, i, n)); err != nil {
							return err
						}
						if rand.N(4) == 0 {
							// its numbers of the table's own sequence are taken, others commit first
							if _, err := tx.Exec(ctx, "SELECT pg_sleep(0.002)"); err != nil {
								return err
							}
						}
					}
					if i%10 == 9 {
						return errs.New(errs.Conflict, "rolled back")
					}
					return nil
				})
				if err != nil && !errs.Is(err, errs.Conflict) {
					t.Error(err)
				}
				if rand.N(3) > 0 {
					servers[rand.N(2)].Nudge()
				}
			}
		})
	}
	const want = writers * each * 9 / 10 * 3
	orders := make([][]string, 6)
	for r := range orders {
		wg.Go(func() {
			hub := servers[r%2].Hub()
			sub, err := hub.Subscribe(ctx, 0, nil)
			for len(orders[r]) < want && err == nil {
				var events []event.Event
				if events, err = sub.Next(ctx); err != nil {
					break
				}
				for _, e := range events {
					if e.Seq != int64(len(orders[r])+1) {
						t.Errorf("reader %d: number %d after %d", r, e.Seq, len(orders[r]))
						return
					}
					orders[r] = append(orders[r], e.ObjectName)
				}
				if rand.N(10) == 0 { // it comes back on another server
					hub = servers[rand.N(2)].Hub()
					sub, err = hub.Subscribe(ctx, sub.Position(), nil)
				}
			}
			if err != nil {
				t.Errorf("reader %d after %d events: %v", r, len(orders[r]), err)
			}
		})
	}
	wg.Wait()
	for r := range orders {
		if !slices.Equal(orders[r], orders[0]) {
			t.Errorf("reader %d saw another order", r)
		}
	}
	seen := map[string]bool{}
	for _, name := range orders[0] {
		seen[name] = true
	}
	if len(seen) != want {
		t.Errorf("%d different events, want %d", len(seen), want)
	}
}

func TestDatabaseRestoredFromBackup(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	s := serve(ctx, t, db, true, func(o *sequence.Options) { o.Poll = 10 * time.Millisecond })
	add(ctx, t, db, "test", "a")
	add(ctx, t, db, "test", "b")
	s.Nudge()
	sub, err := s.Hub().Subscribe(ctx, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for sub.Position() < 2 {
		next(ctx, t, sub)
	}
	if _, err := db.Owner.Exec(ctx, "DELETE FROM events; UPDATE sequencer SET event_seq = 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Next(ctx); !errors.Is(err, sequence.ErrAhead) {
		t.Errorf("got %v", err)
	}
}

func TestAuditChain(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	s := serve(ctx, t, db, true, func(o *sequence.Options) { o.ChainEvery = 5 * time.Millisecond; o.Poll = 10 * time.Millisecond })
	const n = 700
	for i := range n {
		_, err := db.App.Exec(ctx, `INSERT INTO audit_log (principal, role, origin, action, object_kind, object_id, outcome, detail)
			VALUES ($1, 'administrator', 'socket', 'vm.create', 'vm', gen_random_uuid(), 'accepted', $2)`,
			fmt.Sprint("who", i), map[string]any{"b": i, "a": "<&>", "c": 1.5e300, "d": nil})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Nudge()
	for left := 1; left > 0; {
		if err := db.App.QueryRow(ctx, "SELECT count(*) FROM audit_log WHERE seq IS NULL").Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := sequence.VerifyAudit(ctx, db.App); got != n || err != nil {
		t.Fatalf("%d records, %v", got, err)
	}
	// somebody with the owner's rights rewrites history
	spoil := func(sql, says string) {
		t.Helper()
		tx, err := db.Owner.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"ALTER TABLE audit_log DISABLE TRIGGER audit_append_only", sql, "ALTER TABLE audit_log ENABLE TRIGGER audit_append_only"} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := sequence.VerifyAudit(ctx, db.App); err == nil || errs.As(err).Message != says {
			t.Errorf("%s: %v", sql, err)
		}
	}
	spoil("DELETE FROM audit_log WHERE seq = 700", "the audit chain ends at record 699, and 700 were chained: records are missing at its end")
	spoil("UPDATE audit_log SET principal = 'nobody' WHERE seq = 350", "record 350 of the audit chain was changed after it was chained")
	spoil("DELETE FROM audit_log WHERE seq = 3", "the audit chain has no record 3")
}

// Latency from commit to a reader, on the leader and on another server.
func TestLatency(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	leader := serve(ctx, t, db, true, nil)
	other := serve(ctx, t, db, false, nil)
	c := clock.System{}
	measure := func(writer, reader *sequence.Sequencer) []time.Duration {
		sub, err := reader.Hub().Subscribe(ctx, sequence.Latest, nil)
		if err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for range 100 {
			add(ctx, t, db, "test", "x")
			began := c.Boot()
			writer.Nudge()
			next(ctx, t, sub)
			took = append(took, c.Boot()-began)
		}
		slices.Sort(took)
		return took
	}
	// the listeners connect while the first round runs
	measure(leader, leader)
	for _, m := range []struct {
		name           string
		writer, reader *sequence.Sequencer
	}{{"leader to leader", leader, leader}, {"other to leader", other, leader}, {"other to other", other, other}} {
		took := measure(m.writer, m.reader)
		t.Logf("%s: p50 %v, p99 %v", m.name, took[50], took[98])
	}
}
