package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// upFunc is a server that answers as a test says.
type upFunc func(ctx context.Context, method string, req, reply any) error

// Call implements Up.
func (f upFunc) Call(ctx context.Context, method string, req, reply any) error {
	return f(ctx, method, req, reply)
}

// A server that takes reports and does not answer holds them up for a moment
// only: another one gets them, too.
func TestReportsPassAHangingServer(t *testing.T) {
	b := newBench(t)
	fake := clock.NewFake()
	b.agent.cfg.Clock = fake
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	asked, got := make(chan struct{}, 8), make(chan int, 8)
	var hangs atomic.Bool
	hanging := upFunc(func(ctx context.Context, method string, _, _ any) error {
		if method == nodelink.MethodReports {
			hangs.Store(true)
			asked <- struct{}{}
			<-ctx.Done()
			hangs.Store(false)
			return ctx.Err()
		}
		return nil
	})
	good := upFunc(func(_ context.Context, method string, req, reply any) error {
		if method == nodelink.MethodReports {
			items := req.(nodelink.Reports).Items
			*reply.(*nodelink.ReportsReply) = nodelink.ReportsReply{Results: make([]nodelink.Result, len(items))}
			got <- len(items)
		}
		return nil
	})
	life, end := context.WithCancel(ctx)
	ended := make(chan struct{}, 2)
	serve := func(up Up) {
		_ = b.agent.Serve(life, up, 3*time.Second, func([]string) {})
		ended <- struct{}{}
	}
	go serve(hanging)
	b.launch()
	<-asked
	go serve(good)
	// two heartbeats sleep, and the patience with the hanging server is waited for
	if err := fake.Waiters(ctx, 3); err != nil {
		t.Fatal(err)
	}
	fake.Advance(reportPatience)
	select {
	case n := <-got:
		if n == 0 || !hangs.Load() {
			t.Errorf("%d reports, while the other server hangs: %v", n, hangs.Load())
		}
	case <-ctx.Done():
		t.Error("the reports wait for the server that hangs")
	}
	end()
	<-ended
	<-ended
}
