package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/engine/lease"
	"github.com/novacron/novacron/internal/engine/reconcile"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// crown is a leader that the test gives the role to and takes it from.
type crown struct{ give chan context.Context }

func (c crown) Lead(ctx context.Context, role string, lead func(context.Context, lease.Term)) {
	for {
		select {
		case <-ctx.Done():
			return
		case term := <-c.give:
			lead(term, lease.Term{Role: role})
		}
	}
}

func TestTicksNudgesAndReports(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := clock.NewFake()
	began := make(chan int)
	n := 0
	r := reconcile.New(c, slog.New(slog.DiscardHandler), nil, reconcile.Task{
		Name: "sweep", Period: time.Minute,
		Activate: func(context.Context) (any, error) {
			n++
			began <- n
			switch n {
			case 2:
				return nil, errors.New("no luck")
			case 3:
				panic("oops")
			}
			return map[string]int{"swept": n}, nil
		},
	})
	done := make(chan error)
	life, stop := context.WithCancel(ctx)
	go func() { done <- r.Run(life) }()

	if got := <-began; got != 1 {
		t.Fatal(got)
	}
	idle := func() {
		t.Helper()
		if err := c.Waiters(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	idle()
	p := r.Reports()[0]
	if !p.Active || p.Running || p.Activations != 1 || p.LastError != "" || p.LastStatus.(map[string]int)["swept"] != 1 {
		t.Errorf("%+v", p)
	}
	c.Advance(2 * time.Minute)
	<-began
	idle()
	if p := r.Reports()[0]; p.LastError != "no luck" || p.Failures != 1 || p.LastStatus == nil {
		t.Errorf("%+v", p)
	}
	r.Nudge("sweep")
	r.Nudge("nobody")
	<-began
	r.Nudge("sweep") // while it runs, or just after: once more either way
	<-began
	idle()
	if p := r.Reports()[0]; p.Activations != 4 || p.Failures != 2 || p.LastError != "" {
		t.Errorf("%+v", p)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if p := r.Reports()[0]; p.Active {
		t.Error("still active")
	}
}

func TestLeaderOnly(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	k := crown{give: make(chan context.Context)}
	ran := make(chan struct{})
	r := reconcile.New(clock.NewFake(), slog.New(slog.DiscardHandler), k, reconcile.Task{
		Name: "lone", Period: time.Hour, LeaderOnly: true,
		Activate: func(context.Context) (any, error) { ran <- struct{}{}; return nil, nil },
	})
	done := make(chan error)
	life, stop := context.WithCancel(ctx)
	go func() { done <- r.Run(life) }()
	if r.Reports()[0].Active {
		t.Error("active without the role")
	}
	for range 2 {
		term, end := context.WithCancel(life)
		k.give <- term
		<-ran
		end()
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	defer func() {
		if p, _ := recover().(string); !strings.Contains(p, "twice") {
			t.Errorf("recovered %q", p)
		}
	}()
	task := reconcile.Task{Name: "twice", Period: time.Hour, Activate: func(context.Context) (any, error) { return nil, nil }}
	reconcile.New(clock.NewFake(), nil, nil, task, task)
}
