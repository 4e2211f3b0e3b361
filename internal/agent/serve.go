package agent

import (
	"context"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// Up is the way to one server.
type Up interface {
	Call(ctx context.Context, method string, req, reply any) error
}

// callTimeout bounds one call up; a server that takes longer is as good as gone,
// and the session is dialled again.
const callTimeout = 5 * time.Second

// Greet says hello on a fresh session and queues everything for it.
func (a *Agent) Greet(ctx context.Context, up Up, version string) (nodelink.Welcome, error) {
	var w nodelink.Welcome
	h, err := a.Hello(ctx, version)
	if err != nil {
		return w, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := up.Call(ctx, nodelink.MethodHello, h, &w); err != nil {
		return w, err
	}
	if err := a.follow(w); err != nil {
		return w, err
	}
	a.reports.all()
	return w, nil
}

// Serve keeps one session alive: heartbeats at a third of the lease, reports as
// they come. It returns when the session fails or ctx ends. Several sessions,
// one per server, may serve at once; a report goes to whichever is first. learn
// is told which servers there are.
func (a *Agent) Serve(ctx context.Context, up Up, lease time.Duration, learn func(servers []string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer a.Reach(up)()
	go func() { cancel(a.beat(ctx, up, lease/3, learn)) }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.reports.wake:
		}
		if err := a.sendReports(ctx, up); err != nil {
			a.reports.nudge() // another session may have more luck
			return err
		}
	}
}

// Reach has a way to a server count, until the function that it gives is called. Serve
// does so itself.
func (a *Agent) Reach(up Up) (gone func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.up[&up] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.up, &up)
	}
}

// ways gives the ways to servers that there are.
func (a *Agent) ways() []Up {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Up, 0, len(a.up))
	for up := range a.up {
		out = append(out, *up)
	}
	return out
}

func (a *Agent) beat(ctx context.Context, up Up, every time.Duration, learn func([]string)) error {
	for {
		var reply nodelink.HeartbeatReply
		err := a.call(ctx, up, nodelink.MethodHeartbeat, nodelink.Heartbeat{
			NodeEpoch: a.cfg.Epoch, Seq: int64(a.cfg.Epoch)<<32 + a.beats.Add(1),
		}, &reply)
		if err == nil {
			learn(reply.Servers)
			err = a.cfg.Clock.Sleep(ctx, every)
		}
		if err != nil {
			return err
		}
	}
}

func (a *Agent) sendReports(ctx context.Context, up Up) error {
	for {
		items := a.reports.batch()
		if len(items) == 0 {
			return nil
		}
		var reply nodelink.ReportsReply
		answered := a.offer()
		err := a.call(ctx, up, nodelink.MethodReports, nodelink.Reports{NodeEpoch: a.cfg.Epoch, Items: items}, &reply)
		answered()
		if err != nil {
			return err
		}
		for i, r := range reply.Results {
			if r == nodelink.NotPlaced && i < len(items) && items[i].Phase.OnNode() {
				a.log.Warn("the control plane does not place a VM here that runs here; it is left alone", "vm", items[i].VM, "owner_epoch", items[i].Epoch)
			}
		}
		a.reports.taken(items)
	}
}

// reportPatience is how long one server may sit on reports before another one gets
// them, too: a report counts once however often it comes.
const reportPatience = 500 * time.Millisecond

// offer lets another session send the same reports when this one gets no answer.
func (a *Agent) offer() (answered func()) {
	late, free := a.cfg.Clock.After(reportPatience)
	done := make(chan struct{})
	go func() {
		defer free()
		select {
		case <-late:
			a.reports.nudge()
		case <-done:
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

func (a *Agent) call(ctx context.Context, up Up, method string, req, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return up.Call(ctx, method, req, reply)
}

// Housekeep does the slow chores until ctx ends.
func (a *Agent) Housekeep(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.tendImages(ctx) })
	wg.Go(func() { a.tendPools(ctx) })
	wg.Go(func() { clock.Every(ctx, a.cfg.Clock, glanceEvery, a.glance) })
	wg.Go(func() { clock.Every(ctx, a.cfg.Clock, sampleEvery, a.tendSamples) })
	a.prune()
	clock.Every(ctx, a.cfg.Clock, time.Hour, func(context.Context) { a.prune() })
}
