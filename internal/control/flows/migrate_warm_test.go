package flows_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// migratesWarm asks for a warm migration.
func migratesWarm(o migration.Options) func(ctx context.Context, w *world, name string) (control.Accepted, error) {
	return func(ctx context.Context, w *world, name string) (control.Accepted, error) {
		return w.Service.MigrateVM(ctx, controltest.Admin(), name, migration.Request{Reason: "the proof", Kind: migration.Warm, Options: o})
	}
}

// warms makes a cluster with a VM that runs on n1 and whose disks are copied to n2 in rounds. The
// job is driven beside the test until the function it gives is called, which gives its end.
func warms(t *testing.T, c *controltest.Cluster, o migration.Options) (w *world, j id.ID, ends func() job.Job) {
	t.Helper()
	w = &world{Cluster: c, name: "vm"}
	n := w.NewVM(w.name, true)
	n.Node = "n1"
	_, err := w.Service.CreateVM(t.Context(), controltest.Admin(), n)
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	a, err := migratesWarm(o)(t.Context(), w, w.name)
	if err != nil {
		t.Fatal(err)
	}
	driven := make(chan error, 1)
	go func() { driven <- w.Drive(t.Context()) }()
	return w, *a.Job, func() job.Job {
		t.Helper()
		if err := <-driven; err != nil {
			t.Fatal(err)
		}
		end, err := w.Service.Job(t.Context(), *a.Job)
		if err != nil {
			t.Fatal(err)
		}
		if end.State != job.Succeeded {
			t.Logf("it ended as %s: %s %s", end.State, end.ErrorCode, end.ErrorMessage)
		}
		return end
	}
}

// rounds waits until so many rounds are on record, and gives the record.
func (w *world) rounds(t *testing.T, n int64) migration.Migration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		m, err := lastMigration(ctx, w, w.name)
		if err == nil && m.Progress.Warm != nil && m.Progress.Warm.Rounds >= n {
			return m
		}
		if err == nil {
			err = (clock.System{}).Sleep(ctx, 10*time.Millisecond)
		}
		if err != nil {
			t.Fatalf("%d rounds did not come: %v, %+v", n, err, m.Progress)
		}
	}
}

func (w *world) cutsOver(t *testing.T, at *time.Time) {
	t.Helper()
	if _, err := w.Service.CutoverVM(t.Context(), controltest.Admin(), w.name, at); err != nil {
		t.Fatal(err)
	}
}

// A person says when: until then the disks are copied again and again, nothing else can be done
// with the VM, and its guest executes where it is. On simulated and on real guests.
func TestWarmMigrationWaitsForItsCutover(t *testing.T) {
	for name, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{
		"Sim": controltest.New, "QEMU": controltest.NewQEMU,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, j, ends := warms(t, cluster(t, 2), migration.Options{Cutover: migration.Manual, Interval: time.Second})
			w.waitsForCutover(t, j)
			if end := ends(); end.State != job.Succeeded {
				t.Fatal(end.ErrorMessage)
			}
			w.stands(t, "n2", vm.Running)
			m, err := lastMigration(t.Context(), w, w.name)
			if err != nil || m.CutoverAt == nil || m.Downtime.Seen == 0 || m.BytesMoved == 0 || len(m.Escalations) > 0 {
				t.Errorf("the record is %+v, %v", m, err)
			}
			var names []string
			for _, p := range m.Phases {
				names = append(names, p.Name)
			}
			if !slices.Contains(names, migration.PhaseWarm) || !slices.Contains(names, migration.PhaseResumed) || slices.Contains(names, migration.PhaseDisks) {
				t.Errorf("its phases were %v", names)
			}
			if _, err := w.Service.CutoverVM(t.Context(), controltest.Admin(), w.name, nil); !errs.Is(err, errs.InvalidState) {
				t.Errorf("a cutover of what has moved: %v", err)
			}
		})
	}
}

// waitsForCutover expects of a warm migration that it goes on until it is told.
func (w *world) waitsForCutover(t *testing.T, j id.ID) {
	t.Helper()
	m := w.rounds(t, 2)
	if m.Kind != migration.Warm || m.CutoverAt != nil || m.Options.Cutover != migration.Manual {
		t.Errorf("the record is %+v", m)
	}
	if n := len(w.Nodes[0].Host.Executing()); n != 1 {
		t.Errorf("%d guests execute at the source", n)
	}
	_, err := ask(vm.Stop)(t.Context(), w, w.name)
	if e := errs.As(err); e.Code != errs.VMBusy || e.Job != j.String() {
		t.Errorf("a stop meanwhile: %v", err)
	}
	later := time.Now().Add(time.Hour)
	w.cutsOver(t, &later)
	w.rounds(t, m.Progress.Warm.Rounds+1) // and not yet
	w.cutsOver(t, nil)
}

// It comes to its end at the time that was given with the request.
func TestWarmMigrationEndsAtItsTime(t *testing.T) {
	at := time.Now().Add(3 * time.Second)
	w, _, ends := warms(t, controltest.New(t, 2), migration.Options{CutoverAt: at, Interval: time.Second})
	w.rounds(t, 1)
	if end := ends(); end.State != job.Succeeded || time.Now().Before(at) {
		t.Errorf("it ended as %s, %v before its time", end.State, time.Until(at))
	}
	w.stands(t, "n2", vm.Running)
}

// Cancelled between two rounds, it leaves a VM that runs where it was, and nothing besides.
func TestWarmMigrationIsCancelled(t *testing.T) {
	w, j, ends := warms(t, controltest.New(t, 2), migration.Options{Cutover: migration.Manual, Interval: time.Second})
	w.rounds(t, 1)
	if _, err := w.Service.CancelJob(t.Context(), controltest.Admin(), j); err != nil {
		t.Fatal(err)
	}
	if end := ends(); end.State != job.Cancelled {
		t.Errorf("it ended as %s", end.State)
	}
	w.stands(t, "n1", vm.Running)
}

// A guest that ends by itself is not moved: its job says so, and what was copied goes.
func TestGuestEndsWhileItsDisksAreCopied(t *testing.T) {
	w, _, ends := warms(t, controltest.New(t, 2), migration.Options{Cutover: migration.Manual, Interval: time.Second})
	m := w.rounds(t, 1)
	host, ok := w.Nodes[0].Host.(*controltest.SimHost)
	if !ok || !host.PowerOff(m.VM) {
		t.Fatal("the guest cannot power itself off")
	}
	if end := ends(); end.State != job.Failed || end.ErrorCode != string(errs.InvalidState) {
		t.Errorf("it ended as %s: %s", end.State, end.ErrorMessage)
	}
	w.stands(t, "n1", vm.Stopped)
}

// The agent of either node, or of both, dies between two rounds and comes back: the disks are
// copied anew, which stands in the record, and the VM moves in the end.
func TestAgentsDieBetweenRounds(t *testing.T) {
	for name, dies := range map[string][]int{"Source": {0}, "Target": {1}, "Both": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _, ends := warms(t, controltest.New(t, 2), migration.Options{Cutover: migration.Manual, Interval: time.Second})
			w.rounds(t, 1)
			for _, n := range dies {
				w.Nodes[n].Kill()
			}
			for _, n := range dies {
				if err := w.Nodes[n].Start(context.WithoutCancel(t.Context())); err != nil {
					t.Fatal(err)
				}
			}
			w.cutsOver(t, nil)
			if end := ends(); end.State != job.Succeeded {
				t.Fatal(end.ErrorMessage)
			}
			w.stands(t, "n2", vm.Running)
			m, err := lastMigration(t.Context(), w, w.name)
			if err != nil || len(m.Escalations) != 1 || m.Escalations[0].Step != migration.Anew {
				t.Errorf("the record tells %+v, %v", m.Escalations, err)
			}
		})
	}
}

// The way between the nodes is cut between two rounds: the same rounds go on when it is there
// again, and nothing is begun anew.
func TestRoundsGoOnWhenTheWayIsBack(t *testing.T) {
	c := controltest.New(t, 2)
	var cut atomic.Bool
	c.Reaching = func(string) error {
		if cut.Load() {
			return errors.New("nobody reaches anybody")
		}
		return nil
	}
	w, _, ends := warms(t, c, migration.Options{Cutover: migration.Manual, Interval: time.Second})
	w.rounds(t, 1)
	cut.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		m, err := lastMigration(ctx, w, w.name)
		if err == nil && m.Progress.Warm.Cut {
			break
		}
		if err == nil {
			err = (clock.System{}).Sleep(ctx, 10*time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.cutsOver(t, nil) // as soon as it can be
	cut.Store(false)
	if end := ends(); end.State != job.Succeeded {
		t.Fatal(end.ErrorMessage)
	}
	w.stands(t, "n2", vm.Running)
	m, err := lastMigration(t.Context(), w, w.name)
	if err != nil || len(m.Escalations) > 0 || m.Progress.Warm.Cuts == 0 {
		t.Errorf("the record tells %+v %+v, %v", m.Escalations, m.Progress.Warm, err)
	}
}

// A real guest whose disks are copied in rounds: on two hosts of QEMU.
func TestProofsOfWarmMigration(t *testing.T) {
	if !provesAll() {
		t.Skip("it takes minutes, and the same steps run beside it on simulated hosts: make proofs runs it")
	}
	prove.Prove(t, prove.Subject[flows.Env]{Flow: flows.VMMigrateWarm(), Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
		w := newWorld(controltest.NewQEMU(tb, 2), proofs[vm.JobMigrateWarm])
		w.Accept = nil // who accepts it is no matter to a host
		return w
	}})
}
