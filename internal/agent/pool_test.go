package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/pool"
	volumesim "github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func (b *bench) pools() []*pool.Pool {
	if b.shared == "" {
		return nil
	}
	return []*pool.Pool{pool.New(pool.Options{
		Name: "shared", Path: b.shared, Remember: filepath.Join(b.dir, "pool.json"), Node: b.node, Boot: b.boot,
		Open: func(folder string) (volume.Driver, error) { return volumesim.Open(folder, unit.TiB) }, Clock: clock.System{},
	})}
}

// inPool is a bench of a guest that runs, with its disk in a storage pool.
func inPool(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.shared = filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(b.shared, 0o700); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.head.Pools = map[id.ID]id.ID{b.volume: b.agent.pools()[0].ID}
	b.launch()
	return b
}

func (b *bench) inFolder() bool {
	_, err := os.Stat(filepath.Join(b.shared, "volumes", b.volume.String()))
	return err == nil
}

// The disk is in the pool, not on the node, and stays there when what the node has of the VM
// is removed without it.
func TestDiskInAPool(t *testing.T) {
	b := inPool(t)
	if _, err := b.agent.cfg.Volumes.Inspect(t.Context(), b.volume); !errs.Is(err, errs.NotFound) || !b.inFolder() {
		t.Errorf("on the node: %v; in the folder: %t", err, b.inFolder())
	}
	if _, err := b.send("off", &nodelink.PowerOff{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("erase the copy", &nodelink.Erase{}); err != nil || !b.inFolder() {
		t.Errorf("%v; in the folder: %t", err, b.inFolder())
	}
	if _, err := b.send("erase", &nodelink.Erase{Volumes: []id.ID{b.volume}}); err != nil || b.inFolder() {
		t.Errorf("%v; in the folder: %t", err, b.inFolder())
	}
}

// A pool that is not there is named, and what came later than its node is used from then on:
// a guest that the host's reboot ended starts again with it.
func TestPoolThatComesLater(t *testing.T) {
	b := inPool(t)
	c := clock.NewFake()
	if err := os.Rename(b.shared, b.shared+".away"); err != nil {
		t.Fatal(err)
	}
	b.host.PowerLoss()
	b.boot, b.clock = "boot-2", c
	b.restart()
	if r := b.agent.reports.newest(b.vm); b.executing() != 0 || r == nil || r.Phase != vm.PhaseCrashed || !strings.Contains(r.Reason, "is missing") {
		t.Fatalf("without its pool: %+v", r)
	}
	if err := os.Rename(b.shared+".away", b.shared); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { b.agent.tendPools(ctx) })
	b.tended(c, "it starts again", func() bool { return b.executing() == 1 })
}

// What has changed is told to a server, once; one that does not know the call is owed nothing.
func TestPoolsAreTold(t *testing.T) {
	b := inPool(t)
	for want, up := range map[error]Up{nil: told{}, errs.New(errs.Unsupported, "no"): told{errs.New(errs.Unsupported, "no")}} {
		gone := b.agent.Reach(up)
		if !b.agent.tellPools(t.Context(), b.agent.pools()) {
			t.Errorf("with %v nothing was told", want)
		}
		gone()
	}
	if b.agent.tellPools(t.Context(), b.agent.pools()) {
		t.Error("without a server something was told")
	}
	full := b.agent.pools()[0]
	less := full
	less.FreeBytes -= full.TotalBytes / 10
	if !alike(full, full) || alike(full, less) {
		t.Error("a tenth of the space is no difference")
	}
}

type told struct{ err error }

// Call implements Up.
func (u told) Call(_ context.Context, method string, _, _ any) error {
	if method != nodelink.MethodPools {
		return errs.New(errs.Internal, "another call: %s", method)
	}
	return u.err
}
