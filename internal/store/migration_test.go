package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// moving records a migration of a VM between two nodes, with the job that holds it; false
// when the target has no room.
func (b *bench) moving(v vm.View, kind migration.Kind, from, to node.Node) (m migration.Migration, fits bool) {
	b.t.Helper()
	m = migration.Migration{
		ID: id.New(), ProjectID: b.project, VM: v.Intent.ID, VMName: v.Intent.Name, Kind: kind, SourceEpoch: v.Intent.Epoch,
		Source: migration.Place{Node: from.ID, Name: from.Name}, Target: migration.Place{Node: to.ID, Name: to.Name},
		HeldDiskBytes: v.DiskBytes(), CreatedBy: "test",
	}
	if kind == migration.Live {
		m.HeldCPUs, m.HeldMemoryBytes, m.Priority = v.Intent.CPUs, v.Intent.MemoryBytes, 7
		m.Options = migration.Options{BytesPerSecond: unit.MiB, Downtime: time.Second, AutoConverge: true, Compression: "zstd", Channels: 4, Patience: time.Minute, Timeout: time.Hour, MaxDowntime: 2 * time.Second, OnStall: migration.DefaultSteps}
		m.Predicted = migration.Prediction{Bytes: 5, Rate: 4, RateWhy: "said", Duration: time.Second, Downtime: time.Millisecond, Changes: migration.Changes{DirtyRate: 3, From: migration.Sampled, SampledAt: time.Unix(1_790_000_000, 0).UTC()}, Converges: migration.Converging}
	}
	b.tx(func(t *store.Tx) (err error) {
		if fits, err = t.MigrationInsert(b.ctx, m); err != nil || !fits {
			return err
		}
		if _, err := t.VMHold(b.ctx, v.Intent, m.ID); err != nil {
			return err
		}
		return workflow.Enqueue(b.ctx, t.Tx, workflow.NewJob{
			ID: m.ID, Kind: vm.JobMigrateLive, ProjectID: &b.project, OpSeq: 1, CreatedBy: "test", Target: workflow.Target{Kind: "vm", ID: v.Intent.ID, Name: v.Intent.Name},
		})
	})
	return m, fits
}

// used is what two nodes count; nothing of it may be anybody's but VMs' and copies'.
func (b *bench) used(nodes ...node.Node) (out []node.Resources) {
	b.t.Helper()
	for _, n := range nodes {
		got, err := b.NodeGet(b.ctx, n.ID.String())
		b.must(err)
		out = append(out, got.Used)
	}
	drift, err := b.NodeUsageDrift(b.ctx)
	if err != nil || len(drift) > 0 {
		b.t.Errorf("drift: %v %v", drift, err)
	}
	return out
}

// A copy of a VM that executes takes processors and memory, of the target until the swap
// and of the source from then on, until its end.
func TestLiveMigrationHolds(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 8, 8*unit.GiB, 900*unit.GiB), b.node("n2", 3, 8*unit.GiB, 900*unit.GiB)
	web, db := b.running("web", n1.ID, 1), b.running("db", n1.ID, 1)
	one := node.Resources{CPUs: 2, MemoryBytes: unit.GiB, DiskBytes: web.DiskBytes()}
	two := node.Resources{CPUs: 4, MemoryBytes: 2 * unit.GiB, DiskBytes: 2 * web.DiskBytes()}
	m, fits := b.moving(web, migration.Live, n1, n2)
	if diff := cmp.Diff([]node.Resources{two, one}, b.used(n1, n2)); diff != "" || !fits {
		t.Errorf("%v %s", fits, diff)
	}
	if _, fits := b.moving(db, migration.Live, n1, n2); fits {
		t.Error("a second was let onto a node of three processors")
	}
	swap := store.Swap{Migration: m.ID, From: n1.ID, To: n2.ID, Epoch: 1}
	b.tx(func(t *store.Tx) error { _, err := t.VMSwap(b.ctx, b.view(web.Intent.ID), swap); return err })
	if v := b.view(web.Intent.ID); *v.Intent.NodeID != n2.ID || v.Intent.Epoch != 2 || !v.Intent.Reserved {
		t.Errorf("%+v", v.Intent)
	}
	if diff := cmp.Diff([]node.Resources{two, one}, b.used(n1, n2)); diff != "" {
		t.Error(diff)
	}
	b.tx(func(t *store.Tx) error { return t.MigrationEnd(b.ctx, m, job.Succeeded, nil) })
	if diff := cmp.Diff([]node.Resources{one, one}, b.used(n1, n2)); diff != "" {
		t.Error(diff)
	}
	got, err := b.MigrationGet(b.ctx, b.project, m.ID)
	if err != nil || got.Options != m.Options || got.Predicted != m.Predicted || got.Priority != 7 || got.HeldCPUs != 0 || got.HeldMemoryBytes != 0 {
		t.Errorf("%+v %v", got, err)
	}
	// what executes is swapped with its guest, or not at all
	m, _ = b.moving(db, migration.Cold, n1, n2)
	err = b.InTx(b.ctx, func(t *store.Tx) error {
		_, err := t.VMSwap(b.ctx, b.view(db.Intent.ID), store.Swap{Migration: m.ID, From: n1.ID, To: n2.ID, Epoch: 1})
		return err
	})
	wantCode(t, err, errs.StaleEpoch)
}

// How far a migration is costs one row; readers of events hear of phases alone.
func TestMigrationProgress(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 8, 8*unit.GiB, 900*unit.GiB), b.node("n2", 8, 8*unit.GiB, 900*unit.GiB)
	m, _ := b.moving(b.running("web", n1.ID, 1), migration.Live, n1, n2)
	events := b.events("migration.updated")
	far := migration.Progress{Phase: migration.PhaseMemory, MemoryMoved: 10, MemoryRemaining: 90, DisksMoved: 5, DisksRemaining: 1, Rate: 8, DirtyRate: 4, ExpectedDowntime: time.Second}
	b.tx(func(t *store.Tx) error {
		for _, p := range []migration.Progress{{Phase: migration.PhaseDisks, DisksMoved: 4}, far, far, {MemoryMoved: 1}, {Phase: migration.PhaseMemory, MemoryMoved: 12, DisksMoved: 6}} {
			if err := t.MigrationProgress(b.ctx, m.ID, p); err != nil {
				return err
			}
		}
		return nil
	})
	if got := b.events("migration.updated") - events; got != 2 {
		t.Errorf("%d events of 2 phases", got)
	}
	b.tx(func(t *store.Tx) error {
		if err := t.MigrationDowntime(b.ctx, m.ID, migration.Downtime{Hypervisor: 20 * time.Millisecond}); err != nil {
			return err
		}
		return t.MigrationDowntime(b.ctx, m.ID, migration.Downtime{Seen: 90 * time.Millisecond})
	})
	got, err := b.MigrationGet(b.ctx, b.project, m.ID)
	b.must(err)
	// a rate of changes that is not told any more was told
	if want := (migration.Progress{MemoryMoved: 12, DisksMoved: 6, DirtyRate: 4}); got.Progress != want || got.BytesMoved != 18 || len(got.Phases) != 3 {
		t.Errorf("%+v %d %+v", got.Progress, got.BytesMoved, got.Phases)
	}
	if got.Downtime != (migration.Downtime{Hypervisor: 20 * time.Millisecond, Seen: 90 * time.Millisecond}) {
		t.Errorf("%+v", got.Downtime)
	}
	if rate, err := b.MigrationDirtyRate(b.ctx, m.VM); err != nil || rate != 4 {
		t.Errorf("%d %v", rate, err)
	}
	b.tx(func(t *store.Tx) error {
		if err := t.MigrationEnd(b.ctx, m, job.Failed, errs.New(errs.Timeout, "too long")); err != nil {
			return err
		}
		return t.MigrationProgress(b.ctx, m.ID, far)
	})
	if late, err := b.MigrationGet(b.ctx, b.project, m.ID); err != nil || late.Progress != got.Progress {
		t.Errorf("what ended goes on: %+v %v", late.Progress, err)
	}
}

// What was done because it stalled is on record once, with when, however often it is told;
// readers of events hear of it once.
func TestMigrationSteps(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 8, 8*unit.GiB, 900*unit.GiB), b.node("n2", 8, 8*unit.GiB, 900*unit.GiB)
	m, _ := b.moving(b.running("web", n1.ID, 1), migration.Live, n1, n2)
	step := func(key string, s migration.Step, age time.Duration) migration.Taken {
		return migration.Taken{Key: key, Age: age, Escalation: migration.Escalation{Step: s, Stall: migration.Outrun, Reason: "why", Means: migration.Means{Throttle: 40, Downtime: time.Second}}}
	}
	a, c, d := step("a", migration.Throttle, time.Minute), step("c", migration.Lengthen, time.Second), step("d", migration.GiveUp, 0)
	events := b.events("migration.updated")
	for _, told := range [][]migration.Taken{nil, {a}, {a}, {a, c}, {c}, {d}} { // another attempt tells of its own alone
		b.tx(func(t *store.Tx) error { return t.MigrationSteps(b.ctx, m.ID, told) })
	}
	if got := b.events("migration.updated") - events; got != 3 {
		t.Errorf("%d events of 3 steps", got)
	}
	got, err := b.MigrationGet(b.ctx, b.project, m.ID)
	if err != nil || len(got.Escalations) != 3 {
		t.Fatalf("%+v %v", got.Escalations, err)
	}
	for i, want := range []migration.Taken{a, c, d} {
		e := got.Escalations[i]
		if apart := e.At.Sub(got.Escalations[0].At); i > 0 && (apart < 58*time.Second || apart > 2*time.Minute) {
			t.Errorf("%d is %v after the first", i, apart)
		}
		if e.At = (time.Time{}); e != want.Escalation {
			t.Errorf("%+v, want %+v", e, want.Escalation)
		}
	}
	b.tx(func(t *store.Tx) error {
		if err := t.MigrationEnd(b.ctx, m, job.Failed, errs.New(errs.Timeout, "too long")); err != nil {
			return err
		}
		return t.MigrationSteps(b.ctx, m.ID, []migration.Taken{step("e", migration.Wait, 0)})
	})
	if got, err := b.MigrationGet(b.ctx, b.project, m.ID); err != nil || len(got.Escalations) != 3 {
		t.Errorf("what ended goes on: %+v %v", got.Escalations, err)
	}
}

// The program before this one goes on writing what it knows, beside a live migration.
func TestMigrationsOfTheProgramBefore(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 8, 8*unit.GiB, 900*unit.GiB), b.node("n2", 8, 8*unit.GiB, 900*unit.GiB)
	v := b.running("web", n1.ID, 1)
	m, _ := b.moving(b.running("db", n1.ID, 1), migration.Live, n1, n2)
	old := id.New()
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO migrations (id, project_id, vm_id, vm_name, kind, reason, source_node_id, target_node_id, source_epoch,
  held_node_id, held_disk_bytes, prediction, phases, created_by)
VALUES ($1, $2, $3, 'web', 'cold', '', $4, $5, 1, $5, 100, '{"bytes": 1}', jsonb_build_array(jsonb_build_object('name', 'accepted', 'at', now())), 'x')`, []any{old, b.project, v.Intent.ID, n1.ID, n2.ID}},
		{`UPDATE migrations SET held_node_id = NULL, held_disk_bytes = 0 WHERE held_node_id = $1`, []any{n2.ID}},
		{`UPDATE migrations m SET state = 'failed', held_node_id = NULL, held_disk_bytes = 0, finished_at = now(), failure_code = 'x', failure_message = 'y' WHERE m.id = ANY($1)`, []any{[]id.ID{old, m.ID}}},
	} {
		if _, err := b.db.App.Exec(b.ctx, q.sql, q.args...); err != nil {
			t.Fatalf("%s: %v", q.sql, err)
		}
	}
	if got, err := b.MigrationGet(b.ctx, b.project, old); err != nil || got.Predicted.Bytes != 1 || got.BegunAt != nil {
		t.Errorf("%+v %v", got, err)
	}
}
