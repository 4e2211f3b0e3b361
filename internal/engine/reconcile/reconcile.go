package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/engine/lease"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Task is one reconciler.
type Task struct {
	// Name is the word of "novacron debug tasks".
	Name string
	// Period between activations, jittered by a tenth.
	Period time.Duration
	// LeaderOnly runs the task on one server at a time.
	LeaderOnly bool
	// Activate reads everything, does bounded work and gives a status that prints.
	Activate func(ctx context.Context) (status any, err error)
}

// Report is what a task did lately, on this server.
type Report struct {
	Name       string
	Period     time.Duration
	LeaderOnly bool
	// Active: does this server run it (leads, or not leader-only)?
	Active bool
	// Running: is an activation under way?
	Running     bool
	Activations int64
	Failures    int64
	// LastStart is wall time, for display.
	LastStart time.Time
	LastTook  time.Duration
	// MeanTook is over all activations on this server.
	MeanTook   time.Duration
	LastStatus any
	LastError  string
}

// Leader campaigns for a role; lease.Member does.
type Leader interface {
	Lead(ctx context.Context, role string, lead func(ctx context.Context, term lease.Term))
}

// Runner runs tasks.
type Runner struct {
	clock  clock.Clock
	log    *slog.Logger
	leader Leader
	tasks  []*running
	byName map[string]*running
}

// running is a task and what it did.
type running struct {
	Task
	nudge chan struct{}

	mu     sync.Mutex
	report Report
	total  time.Duration
}

// New makes a runner of tasks. leader may be nil when no task is leader-only.
// It panics on tasks that can not be right, since tasks are written by us.
func New(clk clock.Clock, log *slog.Logger, leader Leader, tasks ...Task) *Runner {
	r := &Runner{clock: clk, log: log, leader: leader, byName: map[string]*running{}}
	for _, t := range tasks {
		if t.Name == "" || t.Period <= 0 || t.Activate == nil || r.byName[t.Name] != nil || (t.LeaderOnly && leader == nil) {
			panic(fmt.Sprintf("reconcile: task %q is not whole, or not the only one of its name", t.Name))
		}
		run := &running{Task: t, nudge: make(chan struct{}, 1)}
		run.report = Report{Name: t.Name, Period: t.Period, LeaderOnly: t.LeaderOnly}
		r.tasks, r.byName[t.Name] = append(r.tasks, run), run
	}
	return r
}

// Run activates the tasks until ctx ends, each at once and then by its period.
func (r *Runner) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, t := range r.tasks {
		wg.Go(func() {
			if !t.LeaderOnly {
				r.serve(ctx, t)
				return
			}
			r.leader.Lead(ctx, "task:"+t.Name, func(ctx context.Context, _ lease.Term) { r.serve(ctx, t) })
		})
	}
	wg.Wait()
	return nil
}

// serve activates one task until ctx ends.
func (r *Runner) serve(ctx context.Context, t *running) {
	t.set(func(p *Report) { p.Active = true })
	defer t.set(func(p *Report) { p.Active = false })
	for ctx.Err() == nil {
		r.activate(ctx, t)
		timer, stop := r.clock.After(t.Period*9/10 + rand.N(t.Period/5+1)) //nolint:gosec // jitter
		select {
		case <-ctx.Done():
		case <-t.nudge:
		case <-timer:
		}
		stop()
	}
}

func (r *Runner) activate(ctx context.Context, t *running) {
	began := r.clock.Boot()
	t.set(func(p *Report) { p.Running, p.LastStart = true, r.clock.Now() })
	status, err := guarded(ctx, t.Task)
	took := r.clock.Boot() - began
	if ctx.Err() != nil && err != nil {
		err = nil // it was told to stop
	}
	var again bool
	t.set(func(p *Report) {
		p.Running = false
		p.Activations++
		t.total += took
		p.LastTook, p.MeanTook = took, t.total/time.Duration(p.Activations)
		last := p.LastError
		p.LastError = ""
		if status != nil {
			p.LastStatus = status
		}
		if err != nil {
			p.Failures++
			p.LastError = err.Error()
			again = last == p.LastError
		}
	})
	if err != nil && !again {
		r.log.Warn("a reconciler failed", "task", t.Name, "error", err)
	}
}

// guarded turns a panic into an error: a broken task must not end the server.
func guarded(ctx context.Context, t Task) (status any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "task %s failed by a fault of the program", t.Name).
				Because(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return t.Activate(ctx)
}

func (t *running) set(f func(*Report)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.report)
}

// Nudge activates the task now; if it is running, once more after that. On a
// server that does not lead a leader-only task it is kept until it does. An
// unknown name is ignored. It never blocks.
func (r *Runner) Nudge(name string) {
	if t := r.byName[name]; t != nil {
		select {
		case t.nudge <- struct{}{}:
		default:
		}
	}
}

// Reports tells what each task did lately, in the order they were given.
func (r *Runner) Reports() []Report {
	out := make([]Report, len(r.tasks))
	for i, t := range r.tasks {
		t.set(func(p *Report) { out[i] = *p })
	}
	return out
}
