package control_test

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	volumesim "github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

func migrate(t *testing.T, c *controltest.Cluster, name, to string) (control.Accepted, error) {
	t.Helper()
	return c.Service.MigrateVM(t.Context(), controltest.Admin(), name, migration.Request{Node: to, Reason: "a test"})
}

// onFirst makes a cluster of two nodes with a stopped VM "a" on the first.
func onFirst(t *testing.T) *controltest.Cluster {
	t.Helper()
	c := controltest.New(t, 2)
	n := c.NewVM("a", false)
	n.Node = "n1"
	make1(t, c, n)
	return c
}

func isOn(t *testing.T, c *controltest.Cluster, name, where string) vm.View {
	t.Helper()
	v := view(t, c, name)
	if v.Node == nil || v.Node.Name != where {
		t.Errorf("%s is on %+v, not %s", name, v.Node, where)
	}
	return v
}

func jobIs(t *testing.T, c *controltest.Cluster, j *id.ID, want job.State, code errs.Code) job.Job {
	t.Helper()
	got, err := c.Service.Job(t.Context(), *j)
	if err != nil || got.State != want || got.ErrorCode != string(code) {
		t.Errorf("the job is %s %s %s (%s): %v; want %s %s", got.State, got.ErrorCode, got.ErrorMessage, got.WaitReason, err, want, code)
	}
	return got
}

// A stopped VM moves; while it does, it is held, and its space is counted on both nodes.
func TestMigrate(t *testing.T) {
	c := onFirst(t)
	before := rows(t, c)
	plan, err := c.Service.PlanMigration(t.Context(), controltest.Admin(), "a", migration.Request{})
	if err != nil || plan.Target().Name != "n2" || plan.Bytes != view(t, c, "a").DiskBytes() {
		t.Errorf("%+v %v", plan, err)
	}
	for to, code := range map[string]errs.Code{"n1": errs.InvalidState, "n9": errs.NotFound} {
		if _, err := migrate(t, c, "a", to); !errs.Is(err, code) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	if _, err := c.Service.MigrateVM(t.Context(), controltest.Admin(), "a", migration.Request{Reason: strings.Repeat("x", 501)}); !errs.Is(err, errs.TooLarge) {
		t.Errorf("a long reason: %v", err)
	}
	if after := rows(t, c); after != before {
		t.Errorf("plans and refusals changed something:\n%s\nbefore:\n%s", after, before)
	}
	a, err := migrate(t, c, "a", "")
	if err != nil {
		t.Fatal(err)
	}
	if s := vm.Appear(view(t, c, "a")).State; s != vm.Migrating {
		t.Errorf("it appears as %s", s)
	}
	if _, err := c.Service.AskVM(t.Context(), controltest.Admin(), "a", vm.Start, control.Stop{}); !errs.Is(err, errs.VMBusy) || errs.As(err).Job != a.Job.String() {
		t.Errorf("a start meanwhile: %v", err)
	}
	n2, err := c.Service.Node(t.Context(), "n2")
	if err != nil || n2.Used.DiskBytes != plan.Bytes || n2.Copies != 1 {
		t.Errorf("%+v %v", n2, err)
	}
	if _, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n2", node.Removed, nil); !errs.Is(err, errs.InUse) {
		t.Errorf("its target was removed: %v", err)
	}
	was := view(t, c, "a").Intent.Epoch
	drive(t, c, nil)
	if v := isOn(t, c, "a", "n2"); v.Job != nil || v.Intent.Epoch != was+1 || vm.Appear(v).State != vm.Stopped {
		t.Errorf("%+v", v.Intent)
	}
	m, err := c.Service.Migration(t.Context(), *a.Job)
	if err != nil || m.State != migration.Succeeded || m.Reason != "a test" || m.CreatedBy != "test" || m.Source.Name != "n1" || m.Target.Name != "n2" {
		t.Errorf("%+v %v", m, err)
	}
	var phases []string
	for _, p := range m.Phases {
		phases = append(phases, p.Name)
	}
	if got := strings.Join(phases, " "); got != "accepted copying swapped cleaning" {
		t.Errorf("phases: %s", got)
	}
	clean(t, c)
	request(t, c, "a", vm.Start)
	if _, err := c.Service.MigrateVM(t.Context(), controltest.Admin(), "a", migration.Request{Kind: migration.Cold}); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("cold while it runs: %v", err)
	}
	request(t, c, "a", vm.Delete)
	if m, err := c.Service.Migration(t.Context(), *a.Job); err != nil || m.VMName != "a" {
		t.Errorf("the record of what is deleted: %+v %v", m, err)
	}
	clean(t, c)
}

// A migration that is cancelled leaves the VM as it was, and nothing on the target.
func TestMigrationIsCancelled(t *testing.T) {
	c := onFirst(t)
	a, err := migrate(t, c, "a", "n2")
	if err == nil {
		_, err = c.Service.CancelJob(t.Context(), controltest.Admin(), *a.Job)
	}
	drive(t, c, err)
	jobIs(t, c, a.Job, job.Cancelled, errs.Cancelled)
	if m, err := c.Service.Migration(t.Context(), *a.Job); err != nil || m.State != migration.Cancelled || m.HeldDiskBytes != 0 {
		t.Errorf("%+v %v", m, err)
	}
	isOn(t, c, "a", "n1")
	clean(t, c)
	request(t, c, "a", vm.Start)
}

// Of many that move at once, as many are let go as the target has room for.
func TestMigrationsRaceForSpace(t *testing.T) {
	c := controltest.New(t, 2)
	const all, fit = 12, 5
	for i := range all {
		n := c.NewVM("vm-"+string(rune('a'+i)), false)
		n.Node = "n1"
		make1(t, c, n)
	}
	size := view(t, c, "vm-a").DiskBytes()
	if _, err := c.DB.App.Exec(t.Context(), "UPDATE nodes SET disk_bytes = $1 WHERE name = 'n2'", fit*size+size/2); err != nil {
		t.Fatal(err)
	}
	var moving atomic.Int64
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			switch _, err := migrate(t, c, "vm-"+string(rune('a'+i)), "n2"); {
			case err == nil:
				moving.Add(1)
			case !errs.Is(err, errs.NoNodeFits):
				t.Errorf("refused: %v", err)
			}
		})
	}
	wg.Wait()
	if moving.Load() != fit {
		t.Errorf("%d move, and %d fit", moving.Load(), fit)
	}
	drive(t, c, nil)
	if n, err := c.Service.Node(t.Context(), "n2"); err != nil || n.VMs != fit || n.Copies != 0 {
		t.Errorf("%+v %v", n, err)
	}
	clean(t, c)
}

// What cannot be removed from the source yet keeps the job waiting, not the VM; and when
// the VM is back there by then, nothing of it is removed. Nor is it taken for something
// that the database does not know.
func TestSourceAwayAfterTheSwap(t *testing.T) {
	for _, name := range []string{"There", "BackAgain", "Deleted"} {
		t.Run(name, func(t *testing.T) {
			c := onFirst(t)
			source := c.Nodes[0].Host.Volumes().(*volumesim.Driver)
			source.Fail("delete", errs.New(errs.NodeUnreachable, "away"))
			execute(t, c)
			a, err := migrate(t, c, "a", "n2")
			if err != nil {
				t.Fatal(err)
			}
			until(t, "the VM is free", func() bool { v := view(t, c, "a"); return v.Job == nil && v.Node.Name == "n2" })
			until(t, "its job waits", func() bool {
				j, err := c.Service.Job(t.Context(), *a.Job)
				return err == nil && j.State == job.Waiting && strings.Contains(j.WaitReason, "has moved")
			})
			if n, err := c.Service.Node(t.Context(), "n1"); err != nil || n.Copies != 1 || n.Used.DiskBytes == 0 {
				t.Errorf("what is left is not counted: %+v %v", n, err)
			}
			where := "n2"
			if name == "Deleted" {
				if _, err := c.Service.AskVM(t.Context(), controltest.Admin(), "a", vm.Delete, control.Stop{}); err != nil {
					t.Fatal(err)
				}
				until(t, "it is deleted", func() bool { _, err := c.Service.VM(t.Context(), "a"); return errs.Is(err, errs.NotFound) })
				where = ""
			}
			for _, n := range c.Nodes {
				if err := c.Service.Look(t.Context(), n.ID); err != nil || c.Service.Holds().Held(n.ID) {
					t.Errorf("%s is held for a copy: %v", n.Name, err)
				}
			}
			source.Fail("delete", nil)
			if name == "BackAgain" {
				where = "n1"
				if _, err := migrate(t, c, "a", "n1"); err != nil {
					t.Fatal(err)
				}
				until(t, "it is back", func() bool { v := view(t, c, "a"); return v.Job == nil && v.Node.Name == "n1" })
			}
			err = c.Store.InTx(t.Context(), func(tx *store.Tx) error {
				_, err := workflow.Wake(t.Context(), tx, workflow.Filter{Kind: vm.JobMigrate})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			until(t, "the job has ended", func() bool {
				j, err := c.Service.Job(t.Context(), *a.Job)
				return err == nil && j.State == job.Succeeded
			})
			disksAreThere(t, c, where)
			until(t, "nothing is left", func() bool { left, err := c.Leftovers(t.Context()); return err == nil && len(left) == 0 })
		})
	}
}

// A copy that is not all there is no evidence that its node knows more than the database.
func TestHalfACopyIsNoEvidence(t *testing.T) {
	c := onFirst(t)
	source := c.Nodes[0].Host.Volumes().(*volumesim.Driver)
	source.Fail("send", errs.New(errs.NodeUnreachable, "away"))
	execute(t, c)
	a, err := migrate(t, c, "a", "n2")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the target has begun", func() bool {
		held, err := c.Service.Recovery(t.Context())
		j, err2 := c.Service.Job(t.Context(), *a.Job)
		return err == nil && err2 == nil && !held.Held() && j.State == job.Waiting
	})
	for _, n := range c.Nodes {
		if err := c.Service.Look(t.Context(), n.ID); err != nil || c.Service.Holds().Held(n.ID) {
			t.Errorf("%s is held for a copy: %v", n.Name, err)
		}
	}
	if _, err := c.Service.CancelJob(t.Context(), controltest.Admin(), *a.Job); err != nil {
		t.Fatal(err)
	}
	until(t, "the job has ended", func() bool {
		j, err := c.Service.Job(t.Context(), *a.Job)
		return err == nil && j.State == job.Cancelled
	})
	isOn(t, c, "a", "n1")
	clean(t, c)
}

// What a target tells of a copy that waits for its memory, under the epoch that it would
// have, is nobody's observation, and no evidence of an old database.
func TestReportsOfACopyAreNoEvidence(t *testing.T) {
	c := onFirst(t)
	if _, err := migrate(t, c, "a", "n2"); err != nil {
		t.Fatal(err)
	}
	was := view(t, c, "a")
	for i, p := range []vm.Phase{vm.PhaseIncoming, vm.PhasePaused, vm.PhaseRunning} {
		out, err := c.Service.Reports(t.Context(), c.Nodes[1].ID, 1, []nodelink.Report{{VM: was.Intent.ID, Epoch: was.Intent.Epoch + 1, Seq: gen.ReportSeq(i + 1), Phase: p}})
		if err != nil || !slices.Equal(out.Results, []nodelink.Result{nodelink.NotPlaced}) {
			t.Errorf("%s: %+v %v", p, out, err)
		}
	}
	if v := view(t, c, "a"); vm.Appear(v) != vm.Appear(was) || v.Observed != nil && v.Observed.NodeID != c.Nodes[0].ID || c.Service.Holds().Now().Held() {
		t.Errorf("%+v %+v", v.Observed, c.Service.Holds().Now())
	}
	drive(t, c, nil)
	isOn(t, c, "a", "n2")
	clean(t, c)
}

// disksAreThere looks for the disks of "a" on its node; empty for none.
func disksAreThere(t *testing.T, c *controltest.Cluster, where string) {
	t.Helper()
	if where == "" {
		return
	}
	v := isOn(t, c, "a", where)
	for _, d := range v.Volumes {
		if _, err := c.Nodes[map[string]int{"n1": 0, "n2": 1}[where]].Host.Volumes().Inspect(t.Context(), d.ID); err != nil {
			t.Errorf("a disk is gone: %v", err)
		}
	}
}

// A node that is removed by force on the way ends the migration: of the target, the VM
// is where it was; with the source it is lost, and the target keeps nothing.
func TestMigrationLosesANode(t *testing.T) {
	for gone, want := range map[string]struct{ lost bool }{"n1": {true}, "n2": {false}} {
		t.Run(gone, func(t *testing.T) {
			c := onFirst(t)
			a, err := migrate(t, c, "a", "n2")
			if err != nil {
				t.Fatal(err)
			}
			c.Nodes[map[string]int{"n1": 0, "n2": 1}[gone]].SetDown(true)
			execute(t, c)
			until(t, "the job waits", func() bool {
				j, err := c.Service.Job(t.Context(), *a.Job)
				return err == nil && j.State == job.Waiting && strings.Contains(j.WaitReason, gone)
			})
			if _, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), gone, nil); err != nil {
				t.Fatal(err)
			}
			until(t, "the job has ended", func() bool { j, err := c.Service.Job(t.Context(), *a.Job); return err == nil && j.State == job.Failed })
			jobIs(t, c, a.Job, job.Failed, errs.NodeRemoved)
			v := view(t, c, "a")
			if v.Job != nil || (v.Intent.Lost != nil) != want.lost || v.Intent.Failure != nil {
				t.Errorf("%+v", v.Intent)
			}
			if drift, err := c.Store.NodeUsageDrift(t.Context()); err != nil || len(drift) > 0 {
				t.Errorf("%v %v", drift, err)
			}
		})
	}
}

// However many are asked for, no node takes part in more than it is to at once, and those
// that wait say so, and begin by their priority and then by their age.
func TestMigrationsTakeTurns(t *testing.T) {
	c := controltest.New(t, 3)
	const all, most = 8, 2
	name := func(i int) string { return "vm-" + string(rune('a'+i)) }
	for i := range all {
		n := c.NewVM(name(i), false)
		n.Node = "n1"
		make1(t, c, n)
	}
	var order []id.ID
	for i := range all {
		a, err := c.Service.MigrateVM(t.Context(), controltest.Admin(), name(i), migration.Request{Node: []string{"n2", "n3"}[i%2], Priority: i / 4 * 10})
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, *a.Job)
	}
	order = append(order[4:], order[:4]...)
	source := c.Nodes[0].Host.Volumes().(*volumesim.Driver)
	source.Fail("send", errs.New(errs.NodeUnreachable, "away"))
	execute(t, c)
	until(t, "the others wait", func() bool {
		waiting := 0
		for _, j := range order {
			got, err := c.Service.Job(t.Context(), j)
			if err == nil && got.State == job.Waiting && got.WaitReason == "waits for its turn: 2 of 2 migrations from node n1" {
				waiting++
			}
		}
		return waiting == all-most
	})
	// those that are under way share what their node gives; of the others the record says
	// what they wait for
	rate := int64(100 << 20)
	if _, err := c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", node.Change{MigrationBytesPerSecond: &rate}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "two share what there is", func() bool {
		records, _, err := c.Service.Migrations(t.Context(), store.Page{Limit: 100})
		sharing, waiting := 0, 0
		for _, m := range records {
			switch {
			case m.Share == rate/most:
				sharing++
			case m.Share == 0 && strings.HasPrefix(m.Waits, "waits for its turn"):
				waiting++
			}
		}
		return err == nil && sharing == most && waiting == all-most
	})
	source.Fail("send", nil)
	until(t, "all have moved", func() bool {
		for _, j := range order {
			if got, err := c.Service.Job(t.Context(), j); err != nil || got.State != job.Succeeded {
				return false
			}
		}
		return true
	})
	records, _, err := c.Service.Migrations(t.Context(), store.Page{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(records, func(a, b migration.Migration) int { return a.BegunAt.Compare(*b.BegunAt) })
	for i, m := range records {
		at := 0
		for _, other := range records {
			if !other.BegunAt.After(*m.BegunAt) && other.Phases[len(other.Phases)-1].At.After(*m.BegunAt) {
				at++
			}
		}
		if at > most {
			t.Errorf("%d moved at once when %s began", at, m.VMName)
		}
		// of those whose turn it is together, either may begin first
		if place := slices.Index(order, m.ID); place > i+most-1 {
			t.Errorf("%s began as number %d, and its turn was number %d", m.VMName, i, place)
		}
	}
	clean(t, c)
}

// How many move at once is the operator's to say, within bounds.
func TestMigrationsAtOnce(t *testing.T) {
	c := controltest.New(t, 1)
	three, many := 3, 101
	n, err := c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", node.Change{MigrationsIn: &three}, nil)
	if err != nil || n.Migrations.In != 3 || n.Migrations.Out != 2 {
		t.Errorf("%+v %v", n, err)
	}
	revision := int64(n.Revision)
	policy := node.ShutdownPolicy("leave")
	both := node.Change{Shutdown: &policy, MigrationsOut: &three}
	if n, err = c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", both, &revision); err != nil || n.Migrations.Out != 3 || n.Shutdown != policy {
		t.Errorf("%+v %v", n, err)
	}
	if _, err := c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", both, &revision); !errs.Is(err, errs.RevisionMismatch) {
		t.Errorf("by an old revision: %v", err)
	}
	if _, err := c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", node.Change{MigrationsOut: &many}, nil); !errs.Is(err, errs.OutOfRange) {
		t.Errorf("%d at once: %v", many, err)
	}
	rate, little, none := int64(50<<20), int64(1000), int64(0)
	if n, err = c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", node.Change{MigrationBytesPerSecond: &rate}, nil); err != nil || n.Migrations != (node.Migrations{Out: 3, In: 3, BytesPerSecond: rate}) {
		t.Errorf("%+v %v", n.Migrations, err)
	}
	if _, err := c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", node.Change{MigrationBytesPerSecond: &little}, nil); !errs.Is(err, errs.OutOfRange) {
		t.Errorf("%d bytes per second: %v", little, err)
	}
	if n, err = c.Service.UpdateNode(t.Context(), controltest.Admin(), "n1", node.Change{MigrationBytesPerSecond: &none}, nil); err != nil || n.Migrations.BytesPerSecond != 0 {
		t.Errorf("%+v %v", n.Migrations, err)
	}
}

// A VM that runs moves as it was asked for: what that takes is counted on both nodes, and
// its record has what was expected beside what came.
func TestMigrateLive(t *testing.T) {
	c := onFirst(t)
	request(t, c, "a", vm.Start)
	ask := migration.Request{Profile: migration.ProfileWAN, Options: migration.Options{BytesPerSecond: 1 << 30, Channels: 4}, Priority: 5}
	plan, err := c.Service.PlanMigration(t.Context(), controltest.Admin(), "a", ask)
	v := view(t, c, "a")
	want := migration.Options{
		BytesPerSecond: 1 << 30, Channels: 4, Downtime: time.Second, AutoConverge: true, Compression: migration.CompressionZstd,
		Patience: migration.DefaultPatience, Timeout: plan.Options.GiveUp(plan.Bytes),
		MaxDowntime: time.Second, OnStall: migration.DefaultSteps,
	}
	if err != nil || plan.Kind != migration.Live || plan.Options != want || plan.Bytes != v.DiskBytes()+v.Intent.MemoryBytes {
		t.Errorf("%+v %v", plan, err)
	}
	a, err := c.Service.MigrateVM(t.Context(), controltest.Admin(), "a", ask)
	if err != nil {
		t.Fatal(err)
	}
	n2, err := c.Service.Node(t.Context(), "n2")
	if err != nil || n2.Used.CPUs != v.Intent.CPUs || n2.Used.MemoryBytes != v.Intent.MemoryBytes || n2.Used.DiskBytes != v.DiskBytes() {
		t.Errorf("%+v %v", n2, err)
	}
	drive(t, c, nil)
	if v := isOn(t, c, "a", "n2"); v.Job != nil || vm.Appear(v).State != vm.Running {
		t.Errorf("%+v %+v", v.Intent, v.Job)
	}
	m, err := c.Service.Migration(t.Context(), *a.Job)
	if err != nil || m.State != migration.Succeeded || m.Kind != migration.Live || m.Options != want || m.Predicted.Bytes != plan.Bytes || m.BegunAt == nil {
		t.Errorf("%+v %v", m, err)
	}
	if m.BytesMoved != m.Progress.Moved() || m.Downtime.Seen == 0 || m.Downtime.Seen < m.Downtime.Hypervisor {
		t.Errorf("%+v %+v %d bytes, %+v", m.Progress, m.Downtime, m.BytesMoved, m.Phases)
	}
	if n1, err := c.Service.Node(t.Context(), "n1"); err != nil || n1.Used != (node.Resources{}) {
		t.Errorf("%+v %v", n1.Used, err)
	}
	clean(t, c)
}
