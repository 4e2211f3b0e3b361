package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/novacron/novacron/internal/agent"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	volumesim "github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// A simulated node is a two-socket server of today.
const (
	simCPUs    = 64
	simMemory  = 256 * unit.GiB
	simStorage = 8 * unit.TiB
)

// simFolder is the folder of the i-th simulated node, counted from 0, whatever its
// name: the node is found again by it.
func simFolder(dataDir string, i int) string {
	return filepath.Join(dataDir, fmt.Sprintf("sim-%04d", i+1))
}

// simName is the name of the i-th simulated node when it joins: base and its
// number, or sim and four digits when nobody named them.
func simName(base string, i int) string {
	if base == "" {
		return fmt.Sprintf("sim-%04d", i+1)
	}
	return fmt.Sprintf("%s-%d", base, i+1)
}

// RunSim is n simulated nodes in this process until ctx ends. tokens are join
// tokens for the nodes that have not joined yet, in order. Everything but the
// guests is real: the agents, their records, the sessions.
func RunSim(ctx context.Context, o Options, n int, tokens []string) error {
	errors := make([]error, n)
	var wg sync.WaitGroup
	var up atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range n {
		node := o
		node.Name = simName(o.Name, i)
		node.DataDir = simFolder(o.DataDir, i)
		node.Log = o.Log.With("node", node.Name)
		node.Join = ""
		if !joined(node.DataDir) && len(tokens) > 0 {
			node.Join, tokens = tokens[0], tokens[1:]
		}
		node.Ready = func() {
			if up.Add(1) == int64(n) && o.Ready != nil {
				o.Ready()
			}
		}
		wg.Go(func() {
			errors[i] = run(ctx, node, true, func(who *identity) (drivers, error) { return simDrivers(node, who) })
			if firstError(errors[i:i+1]) != nil {
				cancel() // one node that cannot be is a mistake of all
			}
		})
	}
	wg.Wait()
	return firstError(errors)
}

// Unjoined tells how many of n simulated nodes still need a token.
func Unjoined(dataDir string, n int) (missing int) {
	for i := range n {
		if !joined(simFolder(dataDir, i)) {
			missing++
		}
	}
	return missing
}

func simDrivers(o Options, who *identity) (drivers, error) {
	volumes, _ := folders(o)
	vols, err := volumesim.Open(volumes, simStorage)
	if err != nil {
		return drivers{}, err
	}
	host, err := sim.NewHost(sim.Options{Clock: o.Clock, Dir: filepath.Join(o.DataDir, "guests")})
	if err != nil {
		return drivers{}, err
	}
	name := who.state.Name
	return drivers{
		hypervisor: func(s hypervisor.Sink) (hypervisor.Driver, error) { return sim.New(host, s), nil },
		volumes:    vols,
		inPool:     func(folder string) (volume.Driver, error) { return volumesim.Open(folder, simStorage) },
		images:     noImages{},
		inventory: func(ctx context.Context, d hypervisor.Driver) (nodelink.Inventory, error) {
			about, err := d.Describe(ctx)
			return nodelink.Inventory{
				Hostname: name, Kernel: "simulated", OS: "NovaCron simulator", CPUModel: "simulated",
				CPUs: simCPUs, MemoryBytes: simMemory, StorageBytes: simStorage,
				Hypervisor: about.Hypervisor, HypervisorVersion: about.Version,
				Acceleration: about.Acceleration.Kind, AccelerationReason: about.Acceleration.Reason,
				MachineTypes: about.Machines, CPUModels: about.CPUs, Firmware: about.Firmware, LiveMigration: d.Capabilities().Migrate, WarmMigration: d.Capabilities().Warm,
				Simulated: true, Limits: limits(d.Capabilities()), Bridges: bridges(d.Capabilities().Bridges, d.Capabilities().Bridges),
			}, err
		},
		volatile: true,
	}, nil
}

// noImages is the image cache of a node whose guests execute nothing.
type noImages struct{}

var _ agent.Images = noImages{}

// Ensure implements agent.Images.
func (noImages) Ensure(context.Context, nodelink.ImageFile, ...agent.Fetch) error { return nil }

// Path implements agent.Images.
func (noImages) Path(f nodelink.ImageFile) (string, error) { return "/sim/" + f.SHA256, nil }

// Drop implements agent.Images.
func (noImages) Drop([]string) error { return nil }
