package store_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// running places a VM on the node and raises its epoch so many times.
func (b *bench) running(name string, node id.ID, epochs int) vm.View {
	b.t.Helper()
	v, job := b.vm(name)
	b.tx(func(t *store.Tx) error {
		if _, err := t.VMPlace(b.ctx, v, node); err != nil {
			return err
		}
		for range epochs {
			if _, err := t.VMRaiseEpoch(b.ctx, v.Intent.ID); err != nil {
				return err
			}
		}
		return t.VMFree(b.ctx, v.Intent.ID, job, nil)
	})
	return b.view(v.Intent.ID)
}

func report(v vm.View, epoch, seq int, phase vm.Phase) nodelink.Report {
	return nodelink.Report{
		VM: v.Intent.ID, Epoch: gen.OwnerEpoch(epoch), Seq: gen.ReportSeq(seq), Phase: phase, Reason: fmt.Sprint("report ", seq),
		Since: time.Date(2026, 1, 1, 0, 0, seq, 0, time.UTC),
	}
}

func TestReports(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 64, 64*unit.GiB, 900*unit.GiB), b.node("n2", 64, 64*unit.GiB, 900*unit.GiB)
	web, db := b.running("web", n1.ID, 2), b.running("db", n2.ID, 1)
	apply := func(node id.ID, want []nodelink.Result, items ...nodelink.Report) {
		t.Helper()
		got, err := b.ReportsApply(b.ctx, node, 1, items)
		b.must(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	}
	events := b.events("vm.updated")
	gone := vm.View{Intent: vm.Intent{ID: id.New()}}
	apply(n1.ID, []nodelink.Result{nodelink.Applied, nodelink.NotPlaced, nodelink.NotPlaced},
		report(web, 2, 5, vm.PhaseStarting), report(db, 1, 1, vm.PhaseRunning), report(gone, 1, 1, vm.PhaseRunning))
	if got := b.events("vm.updated") - events; got != 1 {
		t.Errorf("%d events", got)
	}
	// replayed, late, of an earlier incarnation; several of one at once
	apply(n1.ID, []nodelink.Result{nodelink.Stale}, report(web, 2, 5, vm.PhaseCrashed))
	apply(n1.ID, []nodelink.Result{nodelink.Stale}, report(web, 2, 4, vm.PhaseCrashed))
	apply(n1.ID, []nodelink.Result{nodelink.Stale}, report(web, 1, 9, vm.PhaseCrashed))
	apply(n1.ID, []nodelink.Result{nodelink.Stale, nodelink.Applied, nodelink.Stale, nodelink.Stale},
		report(web, 2, 6, vm.PhaseRunning), report(web, 2, 8, vm.PhasePaused), report(web, 2, 7, vm.PhaseRunning), report(web, 1, 8, vm.PhaseRunning))
	v := b.view(web.Intent.ID)
	if v.Observed.Phase != vm.PhasePaused || v.Observed.Seq != 8 || v.Observed.Epoch != 2 || v.Observed.NodeID != n1.ID {
		t.Errorf("%+v", v.Observed)
	}
	if got := b.events("vm.updated") - events; got != 2 {
		t.Errorf("%d events", got)
	}
	// a new incarnation replaces the last one's record
	b.tx(func(t *store.Tx) error { _, err := t.VMRaiseEpoch(b.ctx, web.Intent.ID); return err })
	apply(n1.ID, []nodelink.Result{nodelink.Stale}, report(web, 2, 99, vm.PhaseRunning))
	apply(n1.ID, []nodelink.Result{nodelink.Applied}, report(web, 3, 1, vm.PhaseRunning))
	var rows int
	b.must(b.db.App.QueryRow(b.ctx, "SELECT count(*) FROM instances WHERE vm_id = $1", web.Intent.ID).Scan(&rows))
	if rows != 1 {
		t.Errorf("%d incarnations kept", rows)
	}
	apply(n1.ID, nil)
	// of a later incarnation than was decided: what is there counts, and it is told
	apply(n1.ID, []nodelink.Result{nodelink.Ahead}, report(web, 5, 2, vm.PhasePaused))
	if v := b.view(web.Intent.ID); v.Observed.Epoch != 5 || v.Intent.Epoch != 3 {
		t.Errorf("%+v", v.Observed)
	}
	apply(n1.ID, []nodelink.Result{nodelink.Ahead}, report(web, 1<<41, 3, vm.PhaseRunning))
	apply(n2.ID, []nodelink.Result{nodelink.NotPlaced}, report(web, 9, 9, vm.PhaseRunning))
	// a copy that waits elsewhere for its memory, under the epoch that it would have
	apply(n2.ID, []nodelink.Result{nodelink.NotPlaced}, report(web, 4, 1, vm.PhaseIncoming))
	if v := b.view(web.Intent.ID); v.Observed.Epoch != 5 || v.Observed.Phase != vm.PhasePaused || v.Observed.NodeID != n1.ID {
		t.Errorf("another node's report counts, or what cannot be true is kept: %+v", v.Observed)
	}
}

// Reports that arrive in any order, twice, on several connections at once, while
// the VM is deleted: the newest stands, and nothing fails.
func TestReportsInAnyOrder(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 64, 64*unit.GiB, 900*unit.GiB)
	var views []vm.View
	for i := range 8 {
		views = append(views, b.running(fmt.Sprint("vm", i), n.ID, 1))
	}
	const last = 60
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, seq := range rand.Perm(last) {
				var items []nodelink.Report
				for _, i := range rand.Perm(len(views)) {
					items = append(items, report(views[i], 1, seq+1, vm.PhaseRunning))
				}
				if _, err := b.ReportsApply(b.ctx, n.ID, 1, items); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for _, v := range views[6:] {
			b.tx(func(t *store.Tx) error { return t.VMDelete(b.ctx, b.view(v.Intent.ID), nil) })
		}
	})
	wg.Wait()
	for _, v := range views[:6] {
		if got := b.view(v.Intent.ID).Observed; got == nil || got.Seq != last || got.Reason != fmt.Sprint("report ", last) {
			t.Errorf("%+v", got)
		}
	}
	b.noDrift()
}

// What a guest said is kept while it is there: addresses that are some, as many as there
// is room for, and whether it is frozen; it goes with the guest.
func TestNotesOfGuests(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 64, 64*unit.GiB, 900*unit.GiB)
	web := b.running("web", n.ID, 1)
	apply := func(seq int, phase vm.Phase, note *nodelink.GuestNote) *vm.Observation {
		t.Helper()
		r := report(web, 1, seq, phase)
		r.Guest = note
		got, err := b.ReportsApply(b.ctx, n.ID, 1, []nodelink.Report{r})
		b.must(err)
		if got[0] != nodelink.Applied {
			t.Errorf("%d: %s", seq, got[0])
		}
		return b.view(web.Intent.ID).Observed
	}
	until := time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC)
	evil := &nodelink.GuestNote{
		Addresses: []string{"10.0.0.5", "x", "{}", "2001:db8::5", "fe80::1%eth0", ""},
		Frozen:    &nodelink.FrozenNote{Until: until, Reason: "a\x00b"},
	}
	o := apply(1, vm.PhaseRunning, evil)
	if got := fmt.Sprint(o.Addresses); got != "[10.0.0.5 2001:db8::5]" || o.Frozen == nil || !o.Frozen.Until.Equal(until) || o.Frozen.Reason != "a b" {
		t.Errorf("%s %+v", got, o.Frozen)
	}
	many := &nodelink.GuestNote{}
	for i := range 100 {
		many.Addresses = append(many.Addresses, fmt.Sprintf("10.0.0.%d", i))
	}
	if o := apply(2, vm.PhasePaused, many); len(o.Addresses) != vm.MostAddresses || o.Frozen != nil {
		t.Errorf("%v %+v", o.Addresses, o.Frozen)
	}
	if o := apply(3, vm.PhaseExited, evil); len(o.Addresses) != 0 || o.Frozen != nil {
		t.Errorf("of a guest that is gone: %v %+v", o.Addresses, o.Frozen)
	}
}
