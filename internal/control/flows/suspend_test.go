package flows_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func suspendedVM(ctx context.Context, w *world, name string) error {
	if err := started(ctx, w, name); err != nil {
		return err
	}
	_, err := ask(vm.Suspend)(ctx, w, name)
	return finish(ctx, w, err)
}

// The start of a suspended VM survives failure, repetition, kill and cancellation at
// every step: it runs, or its memory is kept. And so does giving the memory up.
func TestProofsOfSuspended(t *testing.T) {
	resume := proof{before: suspendedVM, ask: ask(vm.Resume), check: func(ctx context.Context, w *world, name string, end job.State) error {
		if err := either(ctx, w, name, end, vm.Running, vm.Suspended, vm.Running); err != nil {
			return err
		}
		return keeps(ctx, w, name)
	}}
	stop := proof{before: suspendedVM, ask: ask(vm.Stop), check: func(ctx context.Context, w *world, name string, end job.State) error {
		return either(ctx, w, name, end, vm.Stopped, vm.Suspended, vm.Stopped, vm.Failed)
	}}
	for kind, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{"Sim": controltest.New, "QEMU": controltest.NewQEMU} {
		for name, c := range map[string]struct {
			flow func() workflow.Flow[flows.Env]
			p    proof
		}{"Resume": {flows.VMStart, resume}, "Stop": {flows.VMStop, stop}} {
			if kind == "QEMU" && name == "Stop" {
				continue // nothing executes in it
			}
			t.Run(kind+name, func(t *testing.T) {
				t.Parallel()
				prove.Prove(t, prove.Subject[flows.Env]{Flow: c.flow(), Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
					return newWorld(cluster(tb, 1), c.p)
				}})
			})
		}
	}
}

// A suspended VM stays so over a reboot of its node and a restart of its agent, takes
// neither CPU nor memory, and goes on afterwards; nothing but its owner gives its
// memory up.
func TestSuspendedOverReboot(t *testing.T) {
	for name, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{
		"Sim": controltest.New, "QEMU": controltest.NewQEMU,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{Cluster: cluster(t, 1)}
			n, ctx := w.Nodes[0], t.Context()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(suspendedVM(ctx, w, "web"))
			used, err := w.Service.Node(ctx, n.Name)
			must(err)
			if used.Used.CPUs != 0 || used.Used.MemoryBytes != 0 {
				t.Errorf("it still counts: %+v", used.Used)
			}
			for range 2 {
				must(n.Reboot(ctx))
				n.Kill()
				must(n.Return(ctx))
				must(appears(ctx, w, "web", vm.Suspended))
				must(keeps(ctx, w, "web"))
			}
			for r, want := range map[vm.Request]errs.Code{vm.Pause: errs.InvalidState, vm.Resize: errs.InvalidState, vm.Restart: errs.InvalidState} {
				if _, err := ask(r)(ctx, w, "web"); !errs.Is(err, want) {
					t.Errorf("%s: %v", r, err)
				}
			}
			_, err = ask(vm.Resume)(ctx, w, "web")
			must(finish(ctx, w, err))
			must(appears(ctx, w, "web", vm.Running))
			must(keeps(ctx, w, "web"))
			_, err = ask(vm.Suspend)(ctx, w, "web")
			must(finish(ctx, w, err))
			_, err = ask(vm.Stop)(ctx, w, "web")
			must(finish(ctx, w, err))
			must(appears(ctx, w, "web", vm.Stopped))
			v, err := w.Service.VM(ctx, "web")
			must(err)
			if n.Saved(v.Intent.ID) != 0 {
				t.Error("given up, and still there")
			}
			must(suspendedVM(ctx, w, "db"))
			for _, gone := range []string{"web", "db"} {
				_, err = ask(vm.Delete)(ctx, w, gone)
				must(finish(ctx, w, err))
			}
			if left, err := w.Leftovers(ctx); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// A node that suspends its guests when its host shuts down lets them go on when it
// starts again, under the same incarnation, without a control plane.
func TestShutdownSuspends(t *testing.T) {
	for name, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{
		"Sim": controltest.New, "QEMU": controltest.NewQEMU,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{Cluster: cluster(t, 1)}
			n, ctx := w.Nodes[0], t.Context()
			err := started(ctx, w, "web")
			if err == nil {
				_, err = w.Service.SetShutdown(ctx, controltest.Admin(), n.Name, node.ShutdownSuspend, nil)
			}
			var told control.PlansTold
			if err == nil {
				told, err = w.Service.TellPlans(ctx)
			}
			if err != nil || told.Told != 1 {
				t.Fatalf("%+v %v", told, err)
			}
			v, err := w.Service.VM(ctx, "web")
			if err != nil {
				t.Fatal(err)
			}
			if err := n.ShutDown(ctx); err != nil || len(w.Running()) != 0 || n.Saved(v.Intent.ID) != 1 {
				t.Fatalf("after the shutdown run %v, %d saved: %v", w.Running(), n.Saved(v.Intent.ID), err)
			}
			if err := n.Reboot(ctx); err != nil || len(w.Running()) != 1 || n.Saved(v.Intent.ID) != 0 {
				t.Fatalf("after the start run %v, %d saved: %v", w.Running(), n.Saved(v.Intent.ID), err)
			}
			n.Kill()
			if err := n.Return(ctx); err != nil {
				t.Fatal(err)
			}
			_, err = ask(vm.Delete)(ctx, w, "web")
			if err := finish(ctx, w, err); err != nil {
				t.Fatal(err)
			}
			if left, err := w.Leftovers(ctx); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// A memory that is gone from its node is missed: the VM says so, and is not started
// anew as if nothing had been lost.
func TestSavedMemoryIsMissed(t *testing.T) {
	w := &world{Cluster: controltest.New(t, 1)}
	ctx := t.Context()
	if err := suspendedVM(ctx, w, "web"); err != nil {
		t.Fatal(err)
	}
	v, err := w.Service.VM(ctx, "web")
	if err == nil {
		err = w.Nodes[0].LoseSaved(v.Intent.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask(vm.Start)(ctx, w, "web")
	if err := finish(ctx, w, err); err != nil {
		t.Fatal(err)
	}
	if v, err = w.Service.VM(ctx, "web"); err != nil || len(w.Running()) != 0 || v.Intent.Failure == nil || v.Intent.Failure.Code != string(errs.InvalidState) {
		t.Fatalf("%+v %v", v.Intent, err)
	}
	_, err = ask(vm.Stop)(ctx, w, "web")
	err = finish(ctx, w, err)
	if err == nil {
		_, err = ask(vm.Start)(ctx, w, "web")
		err = finish(ctx, w, err)
	}
	if err == nil {
		err = appears(ctx, w, "web", vm.Running)
	}
	if err != nil {
		t.Error(fmt.Errorf("the way out: %w", err))
	}
}
