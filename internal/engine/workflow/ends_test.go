package workflow_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// gathering makes jobs that end: the first alone, and not before the others wait to
// end together.
type gathering struct {
	*bench
	s     *server
	jobs  []id.ID
	first chan struct{} // closed when the first may end
	once  sync.Once

	mu       sync.Mutex
	together []int   // how many ended at once
	alone    []id.ID // whose Finish ran
	refuse   error   // of FinishAll
}

func gather(t *testing.T, n int, refuse error) *gathering {
	t.Helper()
	g := &gathering{bench: newBench(t), first: make(chan struct{}), refuse: refuse}
	f := flow(step("one", nil))
	f.Finish = func(ctx context.Context, _ pgx.Tx, r *run, out workflow.Outcome) error {
		g.mu.Lock()
		if out.Succeeded() {
			g.alone = append(g.alone, r.Job.ID)
		}
		leads := len(g.alone) == 1
		g.mu.Unlock()
		if leads {
			<-g.first
		}
		return ctx.Err()
	}
	f.FinishAll = func(_ context.Context, _ pgx.Tx, runs []*run) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.together = append(g.together, len(runs))
		return g.refuse
	}
	g.s = g.serve(f, nil)
	t.Cleanup(func() { g.once.Do(func() { close(g.first) }) })
	g.begin(1)
	g.wait("the first begins to end", func() bool { _, alone := g.seen(); return len(alone) == 1 })
	g.begin(n - 1)
	g.wait("the others wait to end", func() bool { return g.s.Ending() == n-1 })
	return g
}

func (g *gathering) begin(n int) {
	for range n {
		g.jobs = append(g.jobs, g.enqueue("test", false, nil))
	}
	g.s.Nudge()
}

func (g *gathering) wait(what string, is func() bool) {
	for !is() {
		if (clock.System{}).Sleep(g.ctx, time.Millisecond) != nil {
			g.t.Fatal("not seen: ", what)
		}
	}
}

// seen is what ended how so far.
func (g *gathering) seen() (together []int, alone []id.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.together), slices.Clone(g.alone)
}

func (g *gathering) release() { g.once.Do(func() { close(g.first) }) }

// Jobs that succeed together end in one transaction, but for the one that somebody
// asks to cancel in the last moment, which unwinds.
func TestEndTogether(t *testing.T) {
	g := gather(t, 6, nil)
	_, alone := g.seen()
	var asked id.ID
	for _, j := range g.jobs {
		if j != alone[0] {
			asked = j
			break
		}
	}
	g.tx(func(tx pgx.Tx) error {
		_, err := tx.Exec(g.ctx, "UPDATE jobs SET cancel_requested = true WHERE id = $1", asked)
		return err
	})
	g.release()
	for _, j := range g.jobs {
		want := job.Succeeded
		if j == asked {
			want = job.Cancelled
		}
		if r := g.ends(j, want); want == job.Succeeded && (r.Progress != 100 || r.Holder != nil) {
			t.Errorf("a job that ended with others: %+v", r)
		}
	}
	if together, alone := g.seen(); len(together) != 1 || together[0] != 4 || len(alone) != 1 {
		t.Errorf("together %v, alone %d; want [4], 1", together, len(alone))
	}
	for query, want := range map[string]int{
		"SELECT count(*) FROM job_steps WHERE state = 'done' AND output = '\"one\"'":                5,
		"SELECT count(*) FROM events WHERE kind = 'job.updated' AND data ->> 'state' = 'succeeded'": 5,
	} {
		var n int
		if err := g.db.App.QueryRow(g.ctx, query).Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d, %v; want %d", query, n, err, want)
		}
	}
}

// What cannot end together ends one by one.
func TestEndTogetherFails(t *testing.T) {
	g := gather(t, 4, errors.New("no"))
	g.release()
	for _, j := range g.jobs {
		g.bench.ends(j, job.Succeeded)
	}
	if together, alone := g.seen(); len(together) != 1 || len(alone) != 4 {
		t.Errorf("together %v, alone %d; want one try, 4", together, len(alone))
	}
}
