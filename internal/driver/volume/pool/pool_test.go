package pool_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/pool"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// on gives a folder as a node has it, which was looked at.
func on(t *testing.T, path, memory string, node id.ID) *pool.Pool {
	t.Helper()
	p := pool.New(pool.Options{
		Name: "shared", Path: path, Remember: filepath.Join(memory, "shared.json"), Node: node, Boot: "boot-1",
		Open: func(string) (contract.Driver, error) { return nil, nil }, Clock: clock.System{},
	})
	p.Look(t.Context())
	return p
}

func claims(t *testing.T, path string, node id.ID) *pool.Claims {
	t.Helper()
	u, err := on(t, path, t.TempDir(), node).Use()
	if err != nil {
		t.Fatal(err)
	}
	return u.Claims
}

// Several nodes that find a folder at once agree on one pool.
func TestOneFolderIsOnePool(t *testing.T) {
	path := t.TempDir()
	ids := make([]id.ID, 8)
	var wg sync.WaitGroup
	for i := range ids {
		memory := t.TempDir()
		wg.Go(func() {
			s := on(t, path, memory, id.New()).State()
			if s.Why != "" || s.TotalBytes == 0 {
				t.Errorf("%+v", s)
			}
			ids[i] = s.ID
		})
	}
	wg.Wait()
	for _, i := range ids {
		if i != ids[0] || i == id.Nil {
			t.Fatalf("pools %v", ids)
		}
	}
	left, err := filepath.Glob(filepath.Join(path, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// What was another folder before is not used: a file system that is not mounted is an
// empty folder, or another one.
func TestAnotherFolderIsRefused(t *testing.T) {
	path, memory, node := filepath.Join(t.TempDir(), "p"), t.TempDir(), id.New()
	missing := on(t, path, memory, node)
	if s := missing.State(); !strings.Contains(s.Why, "is missing") || s.ID != id.Nil {
		t.Fatalf("missing: %+v", s)
	}
	if _, err := missing.Use(); !errs.Is(err, errs.HostFailure) || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("use: %v", err)
	}
	mkdir(t, path)
	first := missing.Look(t.Context())
	if first.Why != "" {
		t.Fatalf("there: %+v", first)
	}
	if err := os.Rename(path, path+".unmounted"); err != nil {
		t.Fatal(err)
	}
	mkdir(t, path)
	empty := on(t, path, memory, node).State() // as after a restart
	if !strings.Contains(empty.Why, "no mark any more") || empty.ID != first.ID {
		t.Errorf("empty: %+v", empty)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
		t.Errorf("the empty folder got %v, %v", entries, err)
	}
	on(t, path, t.TempDir(), id.New())
	if s := on(t, path, memory, node).State(); !strings.Contains(s.Why, "is another pool") {
		t.Errorf("another: %+v", s)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestStrangeMarks(t *testing.T) {
	for mark, want := range map[string]string{
		`{"format":2,"id":"01a20937-1c7f-7c6a-b494-faf8832f02d8"}`: "format",
		`{"format":1}`: "format",
		`x`:            "cannot be read",
	} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, "novacron-pool.json"), []byte(mark), 0o600); err != nil {
			t.Fatal(err)
		}
		if s := on(t, path, t.TempDir(), id.New()).State(); !strings.Contains(s.Why, want) {
			t.Errorf("%s: %+v", mark, s)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := on(t, file, t.TempDir(), id.New()).State(); !strings.Contains(s.Why, "is no folder") {
		t.Errorf("a file: %+v", s)
	}
}

func TestClaims(t *testing.T) {
	path, vm, volume := t.TempDir(), id.New(), id.New()
	a, b := claims(t, path, id.New()), claims(t, path, id.New())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(err error, code errs.Code) {
		t.Helper()
		if !errs.Is(err, code) {
			t.Fatalf("got %v, want %s", err, code)
		}
	}
	must(a.Take(volume, vm, 3))
	must(a.Take(volume, vm, 3)) // again
	must(a.Check(volume, 3))
	refused(b.Take(volume, vm, 3), errs.StaleEpoch)
	refused(b.Take(volume, vm, 2), errs.StaleEpoch)
	refused(b.Take(volume, vm, 4), errs.InUse)
	refused(a.Take(volume, id.New(), 9), errs.InUse) // another VM
	must(b.Release(volume, 9))                       // not its own: nothing changes
	must(a.Check(volume, 3))
	must(a.Release(volume, 3))
	refused(a.Check(volume, 3), errs.StaleEpoch)
	refused(b.Take(volume, vm, 3), errs.StaleEpoch) // the epoch stays
	must(b.Take(volume, vm, 4))
	refused(a.Take(volume, vm, 3), errs.StaleEpoch)
	must(a.TakeOver(volume, vm, 5)) // as one that was told that b is done
	refused(b.Check(volume, 4), errs.StaleEpoch)
	refused(b.TakeOver(volume, vm, 5), errs.StaleEpoch)
	refused(b.Forget(volume, 6, false), errs.InUse)
	refused(b.Forget(volume, 4, true), errs.StaleEpoch)
	must(a.Forget(volume, 5, false))
	must(a.Forget(volume, 5, false))
	if left, err := os.ReadDir(filepath.Join(path, "claims")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A damaged claim lets nobody in.
func TestDamagedClaim(t *testing.T) {
	path, volume := t.TempDir(), id.New()
	c := claims(t, path, id.New())
	if err := os.WriteFile(filepath.Join(path, "claims", volume.String()+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.TakeOver(volume, id.New(), 9); !errs.Is(err, errs.HostFailure) {
		t.Error(err)
	}
}

// contender is a node of the property below, with what it believes to hold.
type contender struct {
	claims *pool.Claims
	holds  gen.OwnerEpoch // 0 for nothing
}

// Whatever two nodes do, and whenever they crash, at most one holds a volume at a time, and
// the epoch never falls.
func TestClaimsNeverTwice(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		path, vm, volume := t.TempDir(), id.New(), id.New()
		nodes := []*contender{{claims: claims(t, path, id.New())}, {claims: claims(t, path, id.New())}}
		var highest gen.OwnerEpoch
		for range 100 {
			n := nodes[r.IntN(2)]
			epoch := gen.OwnerEpoch(max(int(highest)+r.IntN(4)-1, 1))
			n.act(t, r.IntN(5), volume, vm, epoch)
			now := read(t, path, volume)
			if now == nil {
				continue
			}
			if now.Epoch < highest {
				t.Fatalf("the epoch fell from %d to %d", highest, now.Epoch)
			}
			highest = now.Epoch
			if held := holders(nodes, volume); held > 1 {
				t.Fatalf("%d nodes hold the volume at epoch %d", held, highest)
			}
		}
	}
}

// act does one of the things that a node does. One that crashes believes what it did, and
// finds out by a check.
func (n *contender) act(t *testing.T, what int, volume, vm id.ID, epoch gen.OwnerEpoch) {
	t.Helper()
	var err error
	switch what {
	case 0, 1:
		if err = n.claims.Take(volume, vm, epoch); err == nil {
			n.holds = epoch
		}
	case 2: // it was told that the other one is done
		if err = n.claims.TakeOver(volume, vm, epoch); err == nil {
			n.holds = epoch
		}
	case 3:
		err = n.claims.Release(volume, n.holds)
		n.holds = 0
	case 4: // crashed: nothing is released, and the epoch is known from its own record
	}
	if err != nil && !errs.Is(err, errs.StaleEpoch) && !errs.Is(err, errs.InUse) {
		t.Fatal(err)
	}
}

func holders(nodes []*contender, volume id.ID) (held int) {
	for _, n := range nodes {
		if n.holds > 0 && n.claims.Check(volume, n.holds) == nil {
			held++
		}
	}
	return held
}

func read(t *testing.T, path string, volume id.ID) *pool.Claim {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path, "claims", volume.String()+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	c := new(pool.Claim)
	if err == nil {
		err = json.Unmarshal(b, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Of many that want one epoch at once, one gets it.
func TestClaimsAtOnce(t *testing.T) {
	path, vm, volume := t.TempDir(), id.New(), id.New()
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		c := claims(t, path, id.New())
		wg.Go(func() {
			err := c.Take(volume, vm, 1)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errs.Is(err, errs.StaleEpoch) && !errs.Is(err, errs.InUse) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d nodes hold the volume", won)
	}
}
