package flows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func migrates(ctx context.Context, w *world, name string) (control.Accepted, error) {
	return w.Service.MigrateVM(ctx, controltest.Admin(), name, migration.Request{Reason: "the proof"})
}

// lastMigration is a VM's newest.
func lastMigration(ctx context.Context, w *world, name string) (migration.Migration, error) {
	all, _, err := w.Service.Migrations(ctx, store.Page{Limit: 1, Filters: map[string]string{"vm": name}})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("there is no migration of %s", name)
	}
	if err != nil {
		return migration.Migration{}, err
	}
	return all[0], nil
}

// moved compares where a VM is with how its migration ended, and with its record.
func moved(ctx context.Context, w *world, name string, end job.State) error {
	m, err := lastMigration(ctx, w, name)
	if err != nil {
		return err
	}
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	want := m.Source
	if end == job.Succeeded {
		want = m.Target
	}
	switch on := *v.Intent.NodeID; {
	case on != want.Node:
		return fmt.Errorf("after a migration that ended as %s from %s to %s it is on %s", end, m.Source.Name, m.Target.Name, v.Node.Name)
	case string(m.State) != string(end), m.FinishedAt == nil, m.HeldDiskBytes != 0:
		return fmt.Errorf("the record of a migration that ended as %s: %+v", end, m)
	case end == job.Succeeded && (m.SwappedEpoch != m.SourceEpoch+1 || m.BytesMoved == 0):
		return fmt.Errorf("the record of one that succeeded: %+v", m)
	}
	return nil
}

// movedLive compares where a VM runs with how its migration ended. One that had been
// swapped when it was told to end has moved, whatever it ended as.
func movedLive(ctx context.Context, w *world, name string, end job.State) error {
	m, err := lastMigration(ctx, w, name)
	if err != nil {
		return err
	}
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	want := m.Source
	if m.SwappedEpoch > 0 {
		want = m.Target
	}
	switch on := *v.Intent.NodeID; {
	case on != want.Node, end == job.Succeeded && m.SwappedEpoch == 0:
		return fmt.Errorf("after a migration that ended as %s from %s to %s, swapped under %d, it is on %s", end, m.Source.Name, m.Target.Name, m.SwappedEpoch, v.Node.Name)
	case string(m.State) != string(end), m.FinishedAt == nil, m.HeldDiskBytes != 0:
		return fmt.Errorf("the record of a migration that ended as %s: %+v", end, m)
	}
	return appears(ctx, w, name, vm.Running)
}

// A suspended VM moves with its memory, or stays with it, whatever fails, is repeated,
// killed or cancelled at whatever step, and goes on where it is.
func TestProofsOfSuspendedMigration(t *testing.T) {
	p := proof{before: suspendedVM, ask: migrates, check: func(ctx context.Context, w *world, name string, end job.State) error {
		if err := moved(ctx, w, name, end); err != nil {
			return err
		}
		if err := appears(ctx, w, name, vm.Suspended); err != nil {
			return err
		}
		if err := keeps(ctx, w, name); err != nil {
			return err
		}
		_, err := ask(vm.Resume)(ctx, w, name)
		if err := finish(ctx, w, err); err != nil {
			return err
		}
		return appears(ctx, w, name, vm.Running)
	}}
	for kind, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{"Sim": controltest.New, "QEMU": controltest.NewQEMU} {
		if kind == "QEMU" && !provesAll() {
			continue // make proofs runs it; simulated hosts tell as much of the flow
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			prove.Prove(t, prove.Subject[flows.Env]{Flow: flows.VMMigrate(), Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
				w := newWorld(cluster(tb, 2), p)
				if kind == "QEMU" {
					w.Accept = nil // who accepts it is no matter to a host
				}
				return w
			}})
		})
	}
}

// Either node of a migration is removed by force, at any step, at once or after it had been
// away: the job ends, the VM is on the other node whole, or lost with the one that had it,
// and nothing is counted or left that is nobody's.
func TestNodeGoneUnderEveryStepOfAMigration(t *testing.T) {
	for _, f := range []workflow.Flow[flows.Env]{flows.VMMigrate(), flows.VMMigrateLive(), flows.VMMigrateWarm()} {
		for _, s := range f.Steps {
			for _, m := range []workflow.Moment{workflow.BeforeDo, workflow.AfterDo} {
				for _, gone := range []string{"n1", "n2"} {
					for _, atOnce := range []bool{true, false} {
						if (atOnce || f.Name == vm.JobMigrateWarm) && f.Name != vm.JobMigrate && s.Name != "move" {
							continue // before it nothing has begun, and after it the other flow tells as much
						}
						name := fmt.Sprintf("%s %s %s %s at once %t", f.Name, gone, m, s.Name, atOnce)
						t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
							t.Parallel()
							nodeGone(t, workflow.Point{Flow: f.Name, Step: s.Name, Moment: m}, gone, atOnce)
						})
					}
				}
			}
		}
	}
}

func nodeGone(t *testing.T, at workflow.Point, gone string, atOnce bool) {
	w := &world{Cluster: controltest.New(t, 2), name: "vm"}
	n := w.NewVM(w.name, at.Flow != vm.JobMigrate)
	n.Node = "n1"
	_, err := w.Service.CreateVM(t.Context(), controltest.Admin(), n)
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	asks := migrates
	if at.Flow == vm.JobMigrateWarm {
		asks = migratesWarm(migration.Options{})
	}
	a, err := asks(t.Context(), w, w.name)
	if err != nil {
		t.Fatal(err)
	}
	w.loses(t, *a.Job, at, w.Nodes[map[string]int{"n1": 0, "n2": 1}[gone]], atOnce)
	j := w.job(t, *a.Job, "it ends", ended)
	if j.State != job.Succeeded && (j.State != job.Failed || (j.ErrorCode != string(errs.NodeRemoved) && j.ErrorCode != string(errs.NodeUnreachable))) {
		t.Errorf("it ended as %s: %s %s", j.State, j.ErrorCode, j.ErrorMessage)
	}
	w.afterTheMove(t, gone)
}

// afterTheMove looks where a VM is, and works with it.
func (w *world) afterTheMove(t *testing.T, gone string) {
	t.Helper()
	ctx := t.Context()
	v, err := w.Service.VM(ctx, w.name)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case v.Job != nil:
		t.Errorf("it is held by job %s", v.Job.ID)
	case v.Intent.Lost != nil && v.Intent.Lost.Node != gone, v.Intent.Lost == nil && v.Node.Name == gone:
		t.Errorf("%+v on %+v, and %s is gone", v.Intent.Lost, v.Node, gone)
	case v.Intent.Lost == nil:
		_, err := ask(vm.Start)(ctx, w, w.name)
		w.settled(t, err)
		if err := appears(ctx, w, w.name, vm.Running); err != nil {
			t.Error(err)
		}
	}
	_, err = ask(vm.Delete)(ctx, w, w.name)
	w.settled(t, err)
	if drift, err := w.Store.NodeUsageDrift(ctx); err != nil || len(drift) > 0 {
		t.Errorf("drift: %v %v", drift, err)
	}
	left, err := w.Leftovers(ctx)
	left = slices.DeleteFunc(left, func(l string) bool { return strings.HasPrefix(l, gone+":") }) // its host is off
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// settled waits until no job is open.
func (w *world) settled(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		var open int
		err := w.DB.App.QueryRow(ctx, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'unwinding')").Scan(&open)
		if err == nil && open == 0 {
			return
		}
		if err == nil {
			err = (clock.System{}).Sleep(ctx, 5*time.Millisecond)
		}
		if err != nil {
			t.Fatalf("%d jobs are open: %v", open, err)
		}
	}
}
