package store_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// bench is a store on a fresh database with a cluster in it.
type bench struct {
	*store.Store
	t       *testing.T
	ctx     context.Context
	db      *storetest.DB
	project id.ID
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	db := storetest.New(t)
	b := &bench{Store: store.New(db.App), t: t, ctx: ctx, db: db}
	b.must(b.ClusterInit(ctx, store.Cluster{ID: id.New(), Incarnation: id.New(), CACertPEM: "pem", CAKeySealed: []byte{1}, CursorKeySealed: []byte{2}}))
	var err error
	b.project, err = b.ProjectDefault(ctx)
	b.must(err)
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) tx(fn func(*store.Tx) error) {
	b.t.Helper()
	b.must(b.InTx(b.ctx, fn))
}

func hash(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

func (b *bench) node(name string, cpus int, memory, disk int64) node.Node {
	b.t.Helper()
	n := node.Node{ID: id.New(), Name: name, KeyHash: hash(name), Epoch: 1, Capacity: node.Resources{CPUs: cpus, MemoryBytes: memory, DiskBytes: disk}}
	b.tx(func(t *store.Tx) error { return t.NodeInsert(b.ctx, n) })
	b.tx(func(t *store.Tx) error { return t.NodeHello(b.ctx, n, n.KeyHash) })
	return n
}

// vm records a VM held by a creating job.
func (b *bench) vm(name string) (vm.View, id.ID) {
	b.t.Helper()
	v := vm.View{
		Intent: vm.Intent{ID: id.New(), ProjectID: b.project, Name: name, CPUs: 2, MemoryBytes: unit.GiB, Hardware: vm.Hardware{}.OrDefault(), Labels: map[string]string{"app": name}},
		Volumes: []vm.Volume{
			{ID: id.New(), Slot: 0, SizeBytes: 10 * unit.GiB}, {ID: id.New(), Slot: 1, SizeBytes: unit.GiB},
		},
		NICs: []vm.NIC{{ID: id.New(), MAC: mac(), Forwards: []vm.Forward{{Protocol: "tcp", HostPort: 2222, GuestPort: 22}}}},
	}
	job := id.New()
	b.tx(func(t *store.Tx) error {
		if err := t.VMInsert(b.ctx, v, job); err != nil {
			return err
		}
		return workflow.Enqueue(b.ctx, t.Tx, workflow.NewJob{
			ID: job, Kind: vm.JobCreate, ProjectID: &b.project, OpSeq: 1, CreatedBy: "test",
			Target: workflow.Target{Kind: "vm", ID: v.Intent.ID, Name: name},
		})
	})
	return b.view(v.Intent.ID), job
}

var macs struct {
	sync.Mutex
	n int
}

func mac() string {
	macs.Lock()
	defer macs.Unlock()
	macs.n++
	return fmt.Sprintf("52:54:00:00:%02x:%02x", macs.n>>8&255, macs.n&255)
}

func (b *bench) view(v id.ID) vm.View {
	b.t.Helper()
	got, err := b.VMByID(b.ctx, v)
	b.must(err)
	return got
}

func (b *bench) events(kind string) int {
	b.t.Helper()
	var n int
	b.must(b.db.App.QueryRow(b.ctx, "SELECT count(*) FROM events WHERE kind = $1", kind).Scan(&n))
	return n
}

func wantCode(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if !errs.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestOpen(t *testing.T) {
	ctx := context.Background()
	empty := storetest.Empty(t)
	if _, err := store.Open(ctx, empty.AppURL); err == nil {
		t.Error("opened a database without a schema")
	}
	if err := store.Migrate(ctx, empty.OwnerURL); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, empty.AppURL)
	if err != nil {
		t.Fatal(err)
	}
	s.Pool().Close()
}

func TestClusterInitRaces(t *testing.T) {
	b := newBench(t)
	first, err := b.ClusterGet(b.ctx)
	b.must(err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := b.ClusterInit(b.ctx, store.Cluster{ID: id.New(), Incarnation: id.New(), CAKeySealed: []byte{}, CursorKeySealed: []byte{}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	again, err := b.ClusterGet(b.ctx)
	b.must(err)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
}

func TestVMView(t *testing.T) {
	b := newBench(t)
	v, job := b.vm("web")
	if v.Intent.Name != "web" || v.Intent.Labels["app"] != "web" || len(v.Volumes) != 2 || len(v.NICs) != 1 || v.Node != nil || v.Observed != nil {
		t.Errorf("%+v", v)
	}
	if v.NICs[0].Forwards[0].GuestPort != 22 || v.DiskBytes() != 11*unit.GiB || v.Job == nil || v.Job.ID != job || v.Job.Kind != vm.JobCreate {
		t.Errorf("%+v %+v", v.NICs, v.Job)
	}
	for _, ref := range []string{"web", v.Intent.ID.String()} {
		got, err := b.VMGet(b.ctx, b.project, ref)
		b.must(err)
		if diff := cmp.Diff(v, got); diff != "" {
			t.Error(diff)
		}
	}
	_, err := b.VMGet(b.ctx, id.New(), "web")
	wantCode(t, err, errs.NotFound) // another project's
	err = b.InTx(b.ctx, func(t *store.Tx) error { return t.VMInsert(b.ctx, vm.View{Intent: v.Intent}, job) })
	wantCode(t, err, errs.AlreadyExists)
	if b.events("vm.created") != 1 {
		t.Error("not exactly one event of the creation")
	}
}

func TestHold(t *testing.T) {
	b := newBench(t)
	v, job := b.vm("web")
	err := b.InTx(b.ctx, func(t *store.Tx) error { _, err := t.VMHold(b.ctx, v.Intent, id.New()); return err })
	wantCode(t, err, errs.VMBusy)
	b.tx(func(t *store.Tx) error { return t.VMFree(b.ctx, v.Intent.ID, job, errs.New(errs.NoSpace, "full")) })
	if v = b.view(v.Intent.ID); v.Job != nil || v.Intent.Failure == nil || v.Intent.Failure.Message != "full" {
		t.Errorf("%+v", v)
	}
	next := id.New()
	b.tx(func(t *store.Tx) error {
		seq, err := t.VMHold(b.ctx, v.Intent, next)
		if seq != 2 {
			b.t.Errorf("op_seq %d", seq)
		}
		if err != nil {
			return err
		}
		return workflow.Enqueue(b.ctx, t.Tx, workflow.NewJob{ID: next, Kind: vm.JobStart, CreatedBy: "test", Target: workflow.Target{Kind: "vm", ID: v.Intent.ID}})
	})
	// an earlier job's end does not free a later job's hold
	b.tx(func(t *store.Tx) error { return t.VMFree(b.ctx, v.Intent.ID, job, nil) })
	if v = b.view(v.Intent.ID); v.Job == nil || v.Job.ID != next {
		t.Errorf("%+v", v.Job)
	}
	b.tx(func(t *store.Tx) error { return t.VMFree(b.ctx, v.Intent.ID, next, nil) })
	if v = b.view(v.Intent.ID); v.Job != nil || v.Intent.Failure != nil {
		t.Errorf("%+v", v)
	}
}

// 200 placements race for what one thing leaves room for: that many are placed, and
// not one more.
func TestRacingPlacementsAreExact(t *testing.T) {
	for name, c := range map[string]struct {
		cpus         int
		memory, disk int64
		want         int
	}{
		"CPUs":   {2 * 37, 1 << 50, 1 << 50, 37},
		"Memory": {10_000, 37 * unit.GiB, 1 << 50, 37},
		"Disk":   {10_000, 1 << 50, 37*11*unit.GiB + 10*unit.GiB, 37},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			n := b.node("n1", c.cpus, c.memory, c.disk)
			var views []vm.View
			for i := range 200 {
				v, _ := b.vm(fmt.Sprint("vm", i))
				views = append(views, v)
			}
			var wg sync.WaitGroup
			var placed atomic.Int64
			for _, v := range views {
				wg.Go(func() {
					err := b.InTx(b.ctx, func(t *store.Tx) error {
						ok, err := t.VMPlace(b.ctx, v, n.ID)
						if ok {
							placed.Add(1)
						}
						return err
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got, err := b.NodeGet(b.ctx, "n1"); err != nil || placed.Load() != int64(c.want) || got.VMs != c.want {
				t.Errorf("%d placed, the node has %d: %v", placed.Load(), got.VMs, err)
			}
			b.noDrift()
		})
	}
}

// Placers that race never give the last byte away twice, and what is counted is
// what is placed.
func TestPlaceNeverOversubscribes(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 10, 100*unit.GiB, 1000*unit.GiB) // room for five VMs by CPU
	var views []vm.View
	for i := range 12 {
		v, _ := b.vm(fmt.Sprint("vm", i))
		views = append(views, v)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var placed []vm.View
	for _, v := range views {
		wg.Go(func() {
			err := b.InTx(b.ctx, func(t *store.Tx) error {
				ok, err := t.VMPlace(b.ctx, v, n.ID)
				if ok {
					mu.Lock()
					placed = append(placed, v)
					mu.Unlock()
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(placed) != 5 {
		t.Errorf("%d placed", len(placed))
	}
	b.noDrift()
	// a stopped VM gives its CPU back and keeps its disk; each twice
	for range 2 {
		b.tx(func(t *store.Tx) error { return t.VMUnreserve(b.ctx, placed[0]) })
	}
	got, err := b.NodeGet(b.ctx, "n1")
	b.must(err)
	if got.Used.CPUs != 8 || got.Used.DiskBytes != 55*unit.GiB || got.VMs != 5 {
		t.Errorf("%+v", got)
	}
	b.noDrift()
	// another takes the room, so the first cannot start again
	late := views[len(views)-1]
	for _, v := range views {
		if b.view(v.Intent.ID).Intent.NodeID == nil {
			late = v
		}
	}
	b.tx(func(t *store.Tx) error { _, err := t.VMPlace(b.ctx, late, n.ID); return err })
	err = b.InTx(b.ctx, func(t *store.Tx) error { _, err := t.VMAdmit(b.ctx, placed[0], nil); return err })
	wantCode(t, err, errs.NoNodeFits)
	b.noDrift()
	for range 2 { // with the view of before it was unreserved
		b.tx(func(t *store.Tx) error { return t.VMUnplace(b.ctx, placed[0]) })
	}
	b.tx(func(t *store.Tx) error { return t.VMDelete(b.ctx, b.view(placed[1].Intent.ID), nil) })
	b.noDrift()
}

func (b *bench) noDrift() {
	b.t.Helper()
	drift, err := b.NodeUsageDrift(b.ctx)
	b.must(err)
	if len(drift) > 0 {
		b.t.Error(drift)
	}
}

func TestCordonedNodeTakesNoNewVM(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 10, 100*unit.GiB, 1000*unit.GiB)
	v, _ := b.vm("web")
	b.tx(func(t *store.Tx) error { return t.NodeSetState(b.ctx, n, node.Cordoned, nil) })
	b.tx(func(t *store.Tx) error {
		ok, err := t.VMPlace(b.ctx, v, n.ID)
		if ok {
			b.t.Error("placed on a cordoned node")
		}
		return err
	})
	old := int64(1)
	err := b.InTx(b.ctx, func(t *store.Tx) error { return t.NodeSetState(b.ctx, n, node.Active, &old) })
	wantCode(t, err, errs.RevisionMismatch)
}

func TestNodeHello(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 4, unit.GiB, unit.GiB)
	hello := func(epoch gen.NodeEpoch, key string) error {
		m := n
		m.Epoch = epoch
		return b.InTx(b.ctx, func(t *store.Tx) error { return t.NodeHello(b.ctx, m, hash(key)) })
	}
	b.must(hello(3, "n1"))
	b.must(hello(3, "n1")) // to another server
	wantCode(t, hello(2, "n1"), errs.StaleEpoch)
	wantCode(t, hello(4, "other"), errs.Forbidden)
	before, err := b.NodeGet(b.ctx, "n1")
	b.must(err)
	b.must(b.NodeBeats(b.ctx, map[id.ID]int64{n.ID: 7, id.New(): 1}))
	b.must(b.NodeBeats(b.ctx, map[id.ID]int64{n.ID: 6}))
	after, err := b.NodeGet(b.ctx, "n1")
	b.must(err)
	if after.LeaseSeq != 7 || after.Revision != before.Revision {
		t.Errorf("lease %d, revision %d after %d", after.LeaseSeq, after.Revision, before.Revision)
	}
	b.tx(func(t *store.Tx) error { return t.NodeSetState(b.ctx, n, node.Removed, nil) })
	wantCode(t, hello(9, "n1"), errs.NodeRemoved)
	_, err = b.NodeGet(b.ctx, "n1")
	wantCode(t, err, errs.NotFound)
	b.node("n1", 4, unit.GiB, unit.GiB) // the name is free again
}

func TestTokens(t *testing.T) {
	b := newBench(t)
	add := func(k store.Token) id.ID {
		k.ID, k.CreatedBy = id.New(), "test"
		b.tx(func(t *store.Tx) error { return t.TokenInsert(b.ctx, k) })
		return k.ID
	}
	join := add(store.Token{Kind: store.TokenJoin, Name: "j", Hash: hash("j"), Life: time.Hour})
	add(store.Token{Kind: store.TokenJoin, Name: "old", Hash: hash("old"), Life: time.Microsecond})
	api := add(store.Token{Kind: store.TokenAPI, Name: "ci", Hash: hash("a"), Role: "reader"})
	_, err := b.TokenUsable(b.ctx, store.TokenJoin, hash("old"))
	wantCode(t, err, errs.Unauthenticated)
	// made in the future: before the database's clock was put back
	ahead := add(store.Token{Kind: store.TokenJoin, Name: "ahead", Hash: hash("ahead"), Life: 2 * 365 * 24 * time.Hour})
	_, err = b.TokenUsable(b.ctx, store.TokenJoin, hash("ahead"))
	b.must(err)
	_, err = b.db.Owner.Exec(b.ctx, "UPDATE tokens SET created_at = created_at + interval '1 year' WHERE id = $1", ahead)
	b.must(err)
	_, err = b.TokenUsable(b.ctx, store.TokenJoin, hash("ahead"))
	wantCode(t, err, errs.Unauthenticated)
	k, err := b.TokenUsable(b.ctx, store.TokenAPI, hash("a"))
	b.must(err)
	if k.Role != "reader" || k.ID != api {
		t.Errorf("%+v", k)
	}
	// one use, whoever races
	var wg sync.WaitGroup
	var mu sync.Mutex
	spent := 0
	for range 5 {
		wg.Go(func() {
			if b.InTx(b.ctx, func(t *store.Tx) error { return t.TokenSpend(b.ctx, join) }) == nil {
				mu.Lock()
				spent++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if spent != 1 {
		t.Errorf("spent %d times", spent)
	}
	b.tx(func(t *store.Tx) error { return t.TokenRevoke(b.ctx, api) })
	_, err = b.TokenUsable(b.ctx, store.TokenAPI, hash("a"))
	wantCode(t, err, errs.Unauthenticated)
}

func TestImage(t *testing.T) {
	b := newBench(t)
	i := image.Image{ID: id.New(), ProjectID: b.project, Name: "debian", Kind: image.Kernel, Cmdline: "quiet"}
	b.tx(func(t *store.Tx) error { return t.ImageInsert(b.ctx, i) })
	f := image.File{Role: image.RoleInitrd, SHA256: strings.Repeat("ab", 32), SizeBytes: 5, Format: "raw"}
	b.tx(func(t *store.Tx) error { return t.ImageFilePut(b.ctx, i, f) })
	err := b.InTx(b.ctx, func(t *store.Tx) error { return t.ImageFilePut(b.ctx, i, f) })
	wantCode(t, err, errs.AlreadyExists)
	use := func(t *store.Tx) error {
		_, err := t.ImageUse(b.ctx, b.project, "debian")
		return err
	}
	err = b.InTx(b.ctx, use)
	wantCode(t, err, errs.InvalidState)
	b.tx(func(t *store.Tx) error { return t.ImageSetState(b.ctx, i, image.Ready, nil) })
	// two use it at once
	b.tx(func(t *store.Tx) error {
		if err := use(t); err != nil {
			return err
		}
		return b.InTx(b.ctx, use)
	})
	got, err := b.ImageGet(b.ctx, b.project, "debian")
	b.must(err)
	if got.State != image.Ready || len(got.Files) != 1 || got.Files[0] != f || got.Cmdline != "quiet" {
		t.Errorf("%+v", got)
	}
}

func TestIdempotency(t *testing.T) {
	b := newBench(t)
	if a, err := b.IdempotencyGet(b.ctx, "p", "k"); a != nil || err != nil {
		t.Error(a, err)
	}
	put := func(body string) (ok bool) {
		b.tx(func(t *store.Tx) (err error) {
			ok, err = t.IdempotencyPut(b.ctx, "p", "k", store.Answer{RequestHash: hash("r"), Status: 202, Body: []byte(body)})
			return err
		})
		return ok
	}
	if !put(`{"a": 1}`) || put(`{"a": 2}`) {
		t.Error("the first does not win")
	}
	a, err := b.IdempotencyGet(b.ctx, "p", "k")
	b.must(err)
	if a.Status != 202 || string(a.Body) != `{"a": 1}` {
		t.Errorf("%+v", a)
	}
}
