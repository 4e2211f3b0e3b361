package controltest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	volumesim "github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// SimHost is a simulated host.
type SimHost struct {
	*sim.Host
	Disks *volumesim.Driver
	// Before, unless nil, gives what stands between the next agent and its driver.
	Before func(*sim.Driver) hypervisor.Driver
}

var _ Host = (*SimHost)(nil)

func newSimHost(tb testing.TB, _ id.ID, dir string) Host {
	tb.Helper()
	h, err := sim.NewHost(sim.Options{})
	must(tb, err)
	tb.Cleanup(h.Close)
	vols, err := volumesim.Open(filepath.Join(dir, "volumes"), unit.TiB)
	must(tb, err)
	return &SimHost{Host: h, Disks: vols}
}

// Hypervisor implements Host.
func (h *SimHost) Hypervisor(s hypervisor.Sink) (hypervisor.Driver, error) {
	d := sim.New(h.Host, s)
	if h.Before != nil {
		return h.Before(d), nil
	}
	return d, nil
}

// Crash implements Host.
func (h *SimHost) Crash(v id.ID) bool { return h.Host.Crash(v, "killed by signal 9") }

// Volumes implements Host.
func (h *SimHost) Volumes() volume.Driver { return h.Disks }

// Images implements Host.
func (h *SimHost) Images() agent.Images { return noImages{} }

// Executing implements Host.
func (h *SimHost) Executing() map[id.ID]int { return sim.Executing(h.Host) }

// limitKinds are what the clusters' hosts can limit guests by.
func limitKinds() []string { return []string{vm.LimitCPUWeight, vm.LimitCPUCap, vm.LimitDiskIO} }

type noImages struct{}

// Ensure implements agent.Images.
func (noImages) Ensure(context.Context, nodelink.ImageFile, ...agent.Fetch) error { return nil }

// Path implements agent.Images.
func (noImages) Path(f nodelink.ImageFile) (string, error) { return "/sim/" + f.SHA256, nil }

// Drop implements agent.Images.
func (noImages) Drop([]string) error { return nil }
