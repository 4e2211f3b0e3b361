package flows_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// level waits until something is so.
func level(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !is() {
		if (clock.System{}).Sleep(ctx, 2*time.Millisecond) != nil {
			t.Fatalf("it never came so far: %s", what)
		}
	}
}

// heard is the verdict on a move that a node has on record; undecided while it has none.
func heard(t *testing.T, w *world, n *controltest.Node, migration, v id.ID) nodelink.Verdict {
	var at nodelink.MoveProgress
	if err := w.Call(t.Context(), n.ID, &nodelink.AskMove{VM: v, Migration: migration}, &at); err != nil {
		t.Error(err)
	}
	return at.Verdict
}

// A source that was away at the swap asks its target for the verdict once it is back, and the
// VM was stopped there and started again meanwhile: the target's record has nothing of the
// move any more. What it says is still what it said.
func TestSourceThatAsksLate(t *testing.T) {
	w, _ := onTheMove(t, controltest.New(t, 2), func(w *world) {
		var once atomic.Bool
		w.Swapped = func(*controltest.Node) error {
			if once.CompareAndSwap(false, true) {
				w.Nodes[0].Kill()
			}
			return nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	driven := make(chan error, 1)
	go func() { driven <- w.Drive(ctx) }()
	there := func() bool {
		v, err := w.Service.VM(t.Context(), w.name)
		return err == nil && v.Node != nil && v.Node.Name == "n2" && v.Job == nil && appears(ctx, w, w.name, vm.Running) == nil
	}
	level(t, "it has moved, and is let go", there)
	again, err := w.Service.AskVM(t.Context(), controltest.Admin(), w.name, vm.Restart, control.Stop{})
	if err != nil {
		t.Fatal(err)
	}
	level(t, "it has started again", func() bool {
		j, err := w.Service.Job(t.Context(), *again.Job)
		return err == nil && j.State == job.Succeeded && there()
	})
	cancel()
	<-driven
	m, err := lastMigration(t.Context(), w, w.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Nodes[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	level(t, "the source has a verdict", func() bool { return heard(t, w, w.Nodes[0], m.ID, m.VM) != nodelink.Undecided })
	if got := heard(t, w, w.Nodes[0], m.ID, m.VM); got != nodelink.Swapped {
		t.Errorf("the source was told %s", got)
	}
	if n := len(w.Running()); n != 1 {
		t.Errorf("it runs %d times", n)
	}
	if err := w.Drive(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stands(t, "n2", vm.Running)
}

// resuming is a driver of which what lets guests execute is another.
type resuming struct {
	*sim.Driver
	resume func(context.Context, *sim.Driver, hypervisor.Ref) (hypervisor.Status, error)
}

// Resume implements hypervisor.Driver.
func (r resuming) Resume(ctx context.Context, of hypervisor.Ref) (hypervisor.Status, error) {
	return r.resume(ctx, r.Driver, of)
}

// through has a node's agent work through another driver from now on; nil for its own.
func through(t *testing.T, n *controltest.Node, as func(*sim.Driver) hypervisor.Driver) {
	t.Helper()
	n.Kill()
	n.Host.(*controltest.SimHost).Before = as
	if err := n.Start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// before is through, for another Resume; nil for the driver's own.
func before(t *testing.T, n *controltest.Node, resume func(context.Context, *sim.Driver, hypervisor.Ref) (hypervisor.Status, error)) {
	t.Helper()
	if resume == nil {
		through(t, n, nil)
		return
	}
	through(t, n, func(d *sim.Driver) hypervisor.Driver { return resuming{d, resume} })
}

// A guest that its target gave up does not go on at its source at the first try. It does at
// the next, and the job says that it goes on there once it does.
func TestSourceGoesOnAtTheSecondTry(t *testing.T) {
	for name, cut := range map[string]bool{"ToldByItsTarget": false, "ToldByTheJob": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failed atomic.Int64
			w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
				before(t, w.Nodes[0], func(ctx context.Context, d *sim.Driver, r hypervisor.Ref) (hypervisor.Status, error) {
					if failed.Add(1) == 1 {
						return hypervisor.Status{}, errCut
					}
					return d.Resume(ctx, r)
				})
				w.Swapping = func(*controltest.Node) error {
					if cut {
						w.Cut()
					}
					return errCut
				}
			})
			if got := drive(); got != job.Failed {
				t.Errorf("it ended as %s", got)
			}
			w.stands(t, "n1", vm.Running)
			if failed.Load() < 2 {
				t.Error("nothing failed")
			}
		})
	}
}

// receiving is a driver whose second landing fails.
type receiving struct {
	*sim.Driver
	times *atomic.Int64
}

// Receive implements hypervisor.Migrator.
func (r receiving) Receive(ctx context.Context, m hypervisor.Machine, d hypervisor.Departure) (hypervisor.Landing, error) {
	if r.times.Add(1) == 2 {
		return hypervisor.Landing{}, errs.New(errs.Timeout, "not now")
	}
	return r.Driver.Receive(ctx, m, d)
}

// A guest comes to a node, leaves it, and comes again, and that its process is made fails at the
// first try: what the node said of the former move is not said of this one, and the next try
// brings it there.
func TestGuestComesAgain(t *testing.T) {
	var times atomic.Int64
	w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
		through(t, w.Nodes[1], func(d *sim.Driver) hypervisor.Driver { return receiving{d, &times} })
	})
	if got := drive(); got != job.Succeeded {
		t.Fatalf("it ended as %s", got)
	}
	for _, to := range []string{"n1", "n2"} {
		a, err := w.Service.MigrateVM(t.Context(), controltest.Admin(), w.name, migration.Request{Node: to})
		if err == nil {
			err = w.Drive(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if j, err := w.Service.Job(t.Context(), *a.Job); err != nil || j.State != job.Succeeded {
			t.Fatalf("to %s it ended as %s: %s %v", to, j.State, j.ErrorMessage, err)
		}
		w.stands(t, to, vm.Running)
	}
	if times.Load() != 3 {
		t.Errorf("it was received %d times", times.Load())
	}
}

// refusing is a driver that refuses to suspend, at first.
type refusing struct {
	*sim.Driver
	times *atomic.Int64
}

// Suspend implements hypervisor.Suspender.
func (r refusing) Suspend(ctx context.Context, of hypervisor.Ref, file string) (hypervisor.Status, error) {
	if r.times.Add(-1) >= 0 {
		return hypervisor.Status{}, errs.New(errs.InvalidState, "not now")
	}
	return r.Driver.Suspend(ctx, of, file)
}

// A VM that its target has given up, though the row says that it is the target's, is the
// source's again with its memory. That this could not be saved at the first try does not mean
// that the guest had ended: it is saved at the next.
func TestMemoryIsNotGivenUp(t *testing.T) {
	var times atomic.Int64
	times.Store(2)
	w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
		through(t, w.Nodes[0], func(d *sim.Driver) hypervisor.Driver { return refusing{d, &times} })
		w.Swapped = func(*controltest.Node) error { return errCut }
	})
	if got := drive(); got != job.Failed {
		t.Errorf("it ended as %s", got)
	}
	w.stands(t, "n1", vm.Running)
	if times.Load() >= 0 {
		t.Error("it was never asked to save the memory")
	}
}

// An agent dies between having taken a guest over and having it execute: at its target, whose
// it is, or at its source, where it is to go on. The next agent finds a halted guest that
// nothing waits for, and has it execute.
func TestAgentsDieBeforeTheGuestExecutes(t *testing.T) {
	for name, at := range map[string]int{"Source": 0, "Target": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			back := make(chan struct{})
			w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
				n := w.Nodes[at]
				var once atomic.Bool
				before(t, n, func(ctx context.Context, d *sim.Driver, r hypervisor.Ref) (hypervisor.Status, error) {
					if !once.CompareAndSwap(false, true) {
						return d.Resume(ctx, r)
					}
					var err error
					if at == 0 { // what was sent is taken back by nothing else
						_, err = d.Resume(ctx, r)
					}
					if _, halted := d.Pause(ctx, r); err != nil || halted != nil {
						t.Error(err, halted)
					}
					go func() {
						defer close(back)
						before(t, n, nil)
					}()
					_ = d.Close() // nothing that comes later reaches the host
					return hypervisor.Status{}, errors.New("the agent has died")
				})
				if at == 0 {
					w.Swapping = func(*controltest.Node) error { return errCut }
				}
			})
			got := drive()
			<-back
			on := map[int]string{0: "n1", 1: "n2"}[at]
			if want := map[int]job.State{0: job.Failed, 1: job.Succeeded}[at]; got != want {
				t.Errorf("it ended as %s, want %s", got, want)
			}
			level(t, "it executes", func() bool { return len(w.Running()) == 1 })
			w.stands(t, on, vm.Running)
		})
	}
}

// A database from before a migration was asked for knows nothing of it: no guest is ended for
// that, unless its owner has changed since.
func TestSwapOfAMigrationThatIsNotOnRecord(t *testing.T) {
	w, drive := onTheMove(t, controltest.New(t, 2), nil)
	if got := drive(); got != job.Succeeded {
		t.Fatalf("it ended as %s", got)
	}
	v := w.stands(t, "n2", vm.Running)
	for _, c := range []struct {
		of    id.ID
		epoch gen.OwnerEpoch
		want  nodelink.Verdict
	}{
		{v.Intent.ID, v.Intent.Epoch, nodelink.Abandoned},
		{v.Intent.ID, v.Intent.Epoch + 1, nodelink.Abandoned},
		{id.New(), 1, nodelink.Abandoned},
		{v.Intent.ID, v.Intent.Epoch - 1, nodelink.Disowned},
	} {
		got, err := w.Service.SwapVM(t.Context(), w.Nodes[0].ID, nodelink.Swap{Migration: id.New(), VM: c.of, Epoch: c.epoch})
		if err != nil || got.Verdict != c.want {
			t.Errorf("epoch %d: %+v %v, want %s", c.epoch, got, err, c.want)
		}
	}
	w.stands(t, "n2", vm.Running)
}

// The target of a move is gone for good, and is removed by force, after it was given the VM and
// before the job heard of that. The source has all that there was: the VM is there again, and
// nobody goes on from a moment that may be long past.
func TestTargetIsRemovedAtTheSwap(t *testing.T) {
	off := make(chan struct{})
	w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
		var once atomic.Bool
		w.Swapped = func(n *controltest.Node) error {
			if once.CompareAndSwap(false, true) {
				n.SetDown(true)
				w.removeByForce(t, n.Name)
				go func() {
					defer close(off)
					n.Kill()
					n.Host.PowerLoss()
				}()
			}
			return errCut
		}
	})
	if got := drive(); got != job.Failed {
		t.Errorf("it ended as %s", got)
	}
	<-off
	if running := w.Running(); len(running) > 0 {
		t.Errorf("%v executes", running)
	}
	if v, err := w.Service.VM(t.Context(), w.name); err != nil || v.Node == nil || v.Node.Name != "n1" {
		t.Errorf("it is on %+v, %+v: %v", v.Node, v.Intent.Lost, err)
	}
	execute(t, w, undisturbed)
	w.afterTheMove(t, "n2")
}
