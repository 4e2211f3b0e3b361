package workflow_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// benchWorld runs jobs of three steps that do nothing.
type benchWorld struct {
	db    *storetest.DB
	ex    *workflow.Executor
	ended chan time.Duration
	mu    sync.Mutex
	began map[id.ID]time.Duration
}

func newBenchWorld(b *testing.B) *benchWorld {
	b.Helper()
	w := &benchWorld{db: storetest.New(b), ended: make(chan time.Duration, 1<<20), began: map[id.ID]time.Duration{}}
	nothing := func(context.Context, *workflow.Run[*benchWorld]) (any, error) { return nil, nil }
	first := func(_ context.Context, r *workflow.Run[*benchWorld]) (any, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended <- (clock.System{}).Boot() - w.began[r.Job.ID]
		return nil, nil
	}
	f := workflow.Flow[*benchWorld]{Name: "bench", Steps: []workflow.Step[*benchWorld]{
		{Name: "one", Do: first}, {Name: "two", Do: nothing}, {Name: "three", Do: nothing},
	}}
	w.ex = workflow.New(workflow.Options{
		Pool: w.db.App, Members: newMembers(), Clock: clock.System{}, Flows: []workflow.Bound{workflow.Bind(f, w)},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.ex.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *benchWorld) enqueue(b *testing.B, n int) {
	b.Helper()
	err := pgtx.Run(context.Background(), w.db.App, func(tx pgx.Tx) error {
		for range n {
			j := workflow.NewJob{ID: id.New(), Kind: "bench", Target: workflow.Target{Kind: "thing", ID: id.New()}, CreatedBy: "b"}
			w.mu.Lock()
			w.began[j.ID] = (clock.System{}).Boot()
			w.mu.Unlock()
			if err := workflow.Enqueue(context.Background(), tx, j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (w *benchWorld) drain(b *testing.B) {
	b.Helper()
	for left := 1; left > 0; {
		err := w.db.App.QueryRow(context.Background(), "SELECT count(*) FROM jobs WHERE state <> 'succeeded'").Scan(&left)
		if err != nil {
			b.Fatal(err)
		}
		_ = (clock.System{}).Sleep(context.Background(), time.Millisecond)
	}
}

// How many jobs of three steps end per second when many wait.
func BenchmarkThroughput(b *testing.B) {
	w := newBenchWorld(b)
	b.ResetTimer()
	for left := b.N; left > 0; left -= 100 {
		w.enqueue(b, min(left, 100))
	}
	w.ex.Nudge()
	w.drain(b)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// From before the job's own transaction to its first step's Do, one at a time.
func BenchmarkLatency(b *testing.B) {
	w := newBenchWorld(b)
	var took []time.Duration
	b.ResetTimer()
	for range b.N {
		w.enqueue(b, 1)
		w.ex.Nudge()
		took = append(took, <-w.ended)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	w.drain(b)
}
