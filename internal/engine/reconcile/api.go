package reconcile

import (
	"context"
	"log/slog"
	"time"

	"github.com/novacron/novacron/internal/engine/lease"
	"github.com/novacron/novacron/internal/vocab/clock"
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
	LastStart   time.Time
	LastTook    time.Duration
	LastStatus  any
	LastError   string
}

// Leader campaigns for a role; lease.Member does.
type Leader interface {
	Lead(ctx context.Context, role string, lead func(ctx context.Context, term lease.Term))
}

// Runner runs tasks.
type Runner struct{}

// New makes a runner of tasks. leader may be nil when no task is leader-only.
func New(clk clock.Clock, log *slog.Logger, leader Leader, tasks ...Task) *Runner {
	return &Runner{}
}

// Run activates the tasks until ctx ends.
func (r *Runner) Run(ctx context.Context) error { panic("reconcile: not built yet") }

// Nudge activates the task now, on whichever grounds; if it is running, once
// more after that. An unknown name is ignored. It never blocks.
func (r *Runner) Nudge(name string) {}

// Reports tells what each task did lately, in the order they were given.
func (r *Runner) Reports() []Report { return nil }
