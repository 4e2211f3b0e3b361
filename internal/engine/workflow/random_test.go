package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// hosts is what the jobs of the random test act upon: per job, the set of
// effects, and the highest attempt seen, as a host keeps it.
type hosts struct {
	mu      sync.Mutex
	effects map[id.ID]map[string]bool
	attempt map[id.ID]int64
	stale   int
	ends    map[id.ID]int
}

// command does something on the host for a job, unless a later attempt was seen.
func (h *hosts) command(r *workflow.Run[*hosts], f func(effects map[string]bool)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Attempt < h.attempt[r.Job.ID] {
		h.stale++
		return errs.New(errs.StaleAttempt, "attempt %d is over", r.Attempt)
	}
	h.attempt[r.Job.ID] = r.Attempt
	if h.effects[r.Job.ID] == nil {
		h.effects[r.Job.ID] = map[string]bool{}
	}
	f(h.effects[r.Job.ID])
	return nil
}

// spot fails now and then, in each of the ways a step can.
func spot(ctx context.Context) error {
	switch rand.N(12) {
	case 0:
		return errs.New(errs.NodeUnreachable, "away")
	case 1:
		return workflow.Wait("a moment", time.Duration(rand.N(4))*time.Millisecond)
	case 2:
		return (clock.System{}).Sleep(ctx, time.Duration(rand.N(5))*time.Millisecond)
	}
	return nil
}

func randomFlow(h *hosts) workflow.Flow[*hosts] {
	type run = workflow.Run[*hosts]
	f := workflow.Flow[*hosts]{Name: "random"}
	for i := range 5 {
		name := fmt.Sprint("step", i)
		s := workflow.Step[*hosts]{Name: name, Cancellable: i < 2, NoReturn: i == 3, Do: func(ctx context.Context, r *run) (any, error) {
			if err := r.Env.command(r, func(e map[string]bool) { e[name] = true }); err != nil {
				return nil, err
			}
			if rand.N(25) == 0 && i < 3 {
				return nil, errs.New(errs.HostFailure, "it broke")
			}
			return i, spot(ctx)
		}}
		if i < 3 {
			s.Undo = func(ctx context.Context, r *run) error {
				if err := r.Env.command(r, func(e map[string]bool) { delete(e, name) }); err != nil {
					return err
				}
				return spot(ctx)
			}
		}
		f.Steps = append(f.Steps, s)
	}
	f.Finish = func(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
		_, err := tx.Exec(ctx, "INSERT INTO events (kind, object_kind, object_id) VALUES ('ended', 'job', $1)", r.Job.ID)
		return err
	}
	return f
}

// Servers that are killed at random moments, one after another, while jobs fail,
// wait and are cancelled: every job ends once, every effect is there or none is.
func TestRandomKills(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	db := storetest.New(t)
	h := &hosts{effects: map[id.ID]map[string]bool{}, attempt: map[id.ID]int64{}, ends: map[id.ID]int{}}
	f := randomFlow(h)
	graves := newMembers() // everyone asks the same graveyard
	type life struct {
		stop context.CancelFunc
		done chan error
	}
	born := func() life {
		m := newMembers()
		e := workflow.New(workflow.Options{
			Pool: db.App, Members: buried{m, graves}, Clock: clock.System{}, Flows: []workflow.Bound{workflow.Bind(f, h)},
			Workers: 8, Poll: 15 * time.Millisecond, Backoff: fast, MaxFailures: 50, MaxFailuresAfter: 500,
			Fault: func(workflow.Point) error {
				if rand.N(90) == 0 {
					return workflow.ErrKilled
				}
				return nil
			},
		})
		ctx, stop := context.WithCancel(ctx)
		l := life{stop: stop, done: make(chan error, 1)}
		go func() {
			err := e.Run(ctx)
			graves.bury(m.id)
			l.done <- err
		}()
		return l
	}
	const jobs = 120
	var ids []id.ID
	for range jobs {
		j := workflow.NewJob{ID: id.New(), Kind: "random", Target: workflow.Target{Kind: "thing", ID: id.New(), Name: "x"}, Cancellable: true, CreatedBy: "test"}
		if err := pgtx.Run(ctx, db.App, func(tx pgx.Tx) error { return workflow.Enqueue(ctx, tx, j) }); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, j.ID)
	}
	servers := []life{born(), born(), born()}
	kills, cancels := 0, 0
	for open := jobs; open > 0; {
		for i, s := range servers {
			select {
			case err := <-s.done:
				if !errors.Is(err, workflow.ErrKilled) {
					t.Fatal(err)
				}
				kills++
				servers[i] = born()
			default:
			}
		}
		if rand.N(3) == 0 {
			err := pgtx.Run(ctx, db.App, func(tx pgx.Tx) error { return workflow.Cancel(ctx, tx, ids[rand.N(jobs)]) })
			if err == nil {
				cancels++
			} else if !errs.Is(err, errs.NotCancellable) {
				t.Fatal(err)
			}
		}
		err := db.App.QueryRow(ctx, "SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'needs_attention')").Scan(&open)
		if err != nil {
			t.Fatal(err)
		}
		if (clock.System{}).Sleep(ctx, 2*time.Millisecond) != nil {
			t.Fatalf("%d jobs do not end", open)
		}
	}
	for _, s := range servers {
		s.stop()
		<-s.done
	}
	t.Logf("%d kills, %d cancels, %d stale commands refused", kills, cancels, h.stale)
	verdict(ctx, t, db, h, ids)
}

// buried judges by a common graveyard.
type buried struct {
	*members
	graves *members
}

// Dead implements workflow.Membership.
func (b buried) Dead(s id.ID) bool { return b.graves.Dead(s) }

func verdict(ctx context.Context, t *testing.T, db *storetest.DB, h *hosts, ids []id.ID) {
	t.Helper()
	states := map[job.State]int{}
	for _, j := range ids {
		var state job.State
		var ends int
		err := db.App.QueryRow(ctx, `SELECT state, (SELECT count(*) FROM events WHERE kind = 'ended' AND object_id = jobs.id) FROM jobs WHERE id = $1`, j).Scan(&state, &ends)
		if err != nil {
			t.Fatal(err)
		}
		states[state]++
		want := 0
		if state == job.Succeeded {
			want = 5
		}
		if got := len(h.effects[j]); got != want || ends != 1 {
			t.Errorf("job %s is %s with %d effects and %d ends", j, state, got, ends)
		}
	}
	if states[job.NeedsAttention] > 0 {
		t.Errorf("jobs need attention: %v", states)
	}
	t.Log(states)
}

// Two executors race for many jobs: each is run once.
func TestTwoExecutorsRace(t *testing.T) {
	b := newBench(t)
	f := flow(step("one", func(_ context.Context, r *run) (any, error) { r.Env.notef("%s", r.Job.ID); return nil, nil }))
	const jobs = 200
	var ids []id.ID
	for range jobs {
		ids = append(ids, b.enqueue("test", false, nil))
	}
	began := (clock.System{}).Boot()
	for range 2 {
		b.serve(f, nil).Nudge()
	}
	for _, j := range ids {
		if r := b.ends(j, job.Succeeded); r.Fence != 1 {
			t.Errorf("job %s was claimed %d times", j, r.Fence)
		}
	}
	t.Logf("%d jobs in %v", jobs, (clock.System{}).Boot()-began)
	runs := map[string]int{}
	for _, n := range b.notes() {
		runs[n]++
	}
	for _, j := range ids {
		if runs[j.String()] != 1 {
			t.Errorf("job %s ran %d times", j, runs[j.String()])
		}
	}
}

// The database goes away in the middle of a step and comes back: the job goes on.
func TestDatabaseAway(t *testing.T) {
	b := newBench(t)
	f := flow(step("one", func(ctx context.Context, r *run) (any, error) {
		_ = r.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user`)
			return err
		})
		return nil, nil
	}), step("two", nil))
	s := b.serve(f, nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	for {
		var state job.State
		err := b.db.Owner.QueryRow(b.ctx, "SELECT state FROM jobs WHERE id = $1", j).Scan(&state)
		if err == nil && state == job.Succeeded {
			return
		}
		if (clock.System{}).Sleep(b.ctx, 3*time.Millisecond) != nil {
			t.Fatalf("job is %s: %v", state, b.notes())
		}
	}
}
