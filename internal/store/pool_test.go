package store_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func (b *bench) says(node id.ID, pools ...nodelink.Pool) {
	b.t.Helper()
	b.tx(func(t *store.Tx) error { return t.NodePools(b.ctx, node, pools) })
}

// A pool is known by its id, with the first node that reports it; who has another one under
// its name has none.
func TestPoolsAppear(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 8, unit.GiB, unit.GiB), b.node("n2", 8, unit.GiB, unit.GiB)
	one, other := id.New(), id.New()
	b.says(n1.ID, nodelink.Pool{Name: "unseen", Why: "is missing"})
	b.says(n1.ID, nodelink.Pool{ID: one, Name: "shared", TotalBytes: unit.TiB, FreeBytes: unit.GiB})
	b.says(n2.ID, nodelink.Pool{ID: other, Name: "shared", TotalBytes: unit.GiB}, nodelink.Pool{ID: one, Name: "mine", TotalBytes: 2 * unit.TiB, Why: "cannot be flushed"})
	all, _, err := b.PoolList(b.ctx, store.Page{Limit: 9})
	b.must(err)
	if len(all) != 1 || all[0].ID != one || all[0].Name != "shared" || all[0].CapacityBytes != unit.TiB || len(all[0].Nodes) != 2 {
		t.Fatalf("pools: %+v", all)
	}
	if n := all[0].Nodes; n[0].NodeName != "n1" || n[0].Why != "" || n[0].FreeBytes != unit.GiB || n[1].Name != "mine" || n[1].Why != "cannot be flushed" {
		t.Errorf("nodes: %+v", n)
	}
	got, err := b.NodeGet(b.ctx, "n2")
	b.must(err)
	if len(got.Pools) != 2 || got.Pools[1].ID != id.Nil || !strings.Contains(got.Pools[1].Why, "name of another pool, "+one.String()) {
		t.Errorf("n2 has %+v", got.Pools)
	}
	want := map[string]id.ID{"shared": one}
	if why := got.CannotUse(want); !strings.Contains(why, "cannot use pool shared: it cannot be flushed") {
		t.Errorf("n2: %q", why)
	}
	b.says(n2.ID, nodelink.Pool{Name: "shared", Why: "is missing"}) // it is that of the name, as far as can be told
	if got, err = b.NodeGet(b.ctx, "n2"); err != nil || got.CannotUse(want) != "cannot use pool shared: it is missing" {
		t.Errorf("n2: %+v %v", got.Pools, err)
	}
	b.says(n2.ID)
	if got, err = b.NodeGet(b.ctx, "n2"); err != nil || got.CannotUse(want) != "has no pool shared" {
		t.Errorf("n2: %+v %v", got.Pools, err)
	}
}

// What is in a pool is counted there, and never more than there is, whoever asks at once.
func TestPoolsAreCounted(t *testing.T) {
	b := newBench(t)
	n1 := b.node("n1", 8, 8*unit.GiB, unit.TiB)
	shared := id.New()
	b.says(n1.ID, nodelink.Pool{ID: shared, Name: "shared", TotalBytes: 10 * unit.GiB})
	v := b.running("web", n1.ID, 1)
	before := b.used(n1)[0]
	var fits, full atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			d := vm.Volume{ID: id.New(), Slot: 10 + i, SizeBytes: 3 * unit.GiB, PoolID: &shared}
			err := b.InTx(b.ctx, func(t *store.Tx) error { return t.VolumeAdd(b.ctx, v, d) })
			switch {
			case err == nil:
				fits.Add(1)
			case errs.Is(err, errs.NoSpace):
				full.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if fits.Load() != 3 || full.Load() != 5 {
		t.Errorf("%d fitted, %d did not", fits.Load(), full.Load())
	}
	p, err := b.PoolGet(b.ctx, "shared")
	b.must(err)
	if p.UsedBytes != 9*unit.GiB || len(p.Volumes) != 3 || p.Volumes[0].VMName != "web" || b.used(n1)[0] != before {
		t.Fatalf("pool %+v, node %+v, was %+v", p, b.used(n1)[0], before)
	}
	first := p.Volumes[0].ID
	resize := func(n int64) error {
		return b.InTx(b.ctx, func(t *store.Tx) error { return t.VolumeResize(b.ctx, v, first, n) })
	}
	if err := resize(5 * unit.GiB); !errs.Is(err, errs.NoSpace) {
		t.Errorf("too large: %v", err)
	}
	b.must(resize(4 * unit.GiB))
	b.tx(func(t *store.Tx) error { return t.VolumeDelete(b.ctx, v, first) })
	if err := b.InTx(b.ctx, func(t *store.Tx) error { return t.PoolDelete(b.ctx, p) }); !errs.Is(err, errs.Conflict) {
		t.Errorf("a pool that is used was deleted: %v", err)
	}
	b.tx(func(t *store.Tx) error { return t.VMDelete(b.ctx, v, nil) })
	b.says(n1.ID)
	if p, err = b.PoolGet(b.ctx, shared.String()); err != nil || p.UsedBytes != 0 {
		t.Errorf("emptied: %+v %v", p, err)
	}
	drift, err := b.PoolUsageDrift(b.ctx)
	if err != nil || len(drift) > 0 {
		t.Errorf("drift: %v %v", drift, err)
	}
	b.tx(func(t *store.Tx) error { return t.PoolDelete(b.ctx, p) })
}
