package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/agent"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Options say which node to be.
type Options struct {
	// DataDir is the node's folder.
	DataDir string
	// Name is the node's, used when it joins; the host's name when empty. Simulated
	// nodes append their number, and are sim-0001 and so on when it is empty.
	Name string
	// Join is a join token; needed only while the folder has no identity.
	Join string
	// Servers are addresses to dial besides those that the node remembers, for when
	// all servers have moved. Which there are is what a server says from then on.
	Servers []string
	// Discover looks for servers on the local network when none of those known can be
	// reached.
	Discover bool
	// RunDir holds sockets; it must be short (UNIX socket paths end at 107 bytes).
	RunDir string
	// RAMDir is on a tmpfs: guests' memory.
	RAMDir string
	// Acceleration forces "kvm" or "tcg"; proved when empty.
	Acceleration string
	// QEMU is the hypervisor's binary; found in PATH when empty.
	QEMU string
	// Share divides the host among this many agents on it: each claims its part of
	// CPUs, memory and storage. 1 when 0.
	Share int
	// ImageCacheBytes is how much of the disk image files are kept on for later; a
	// tenth of the disk, divided by Share, when 0.
	ImageCacheBytes int64
	// Bridges of this host that guests may join; none when empty. Who names one here
	// lets every VM of the cluster that asks for it onto it.
	Bridges []string
	// Pools are the folders that this node shares with others, by the name of each pool.
	Pools map[string]string
	// PeerAddress is the address of this host at which other nodes fetch image files,
	// and machines that move; "relay" for none, so that servers carry it all, or "off" for
	// nothing at all. The one that servers are reached from when empty. Simulated nodes have
	// none.
	PeerAddress string
	// Shutdown, once it is closed, makes Run shut its guests down before it returns:
	// the node itself is stopping. The records keep that they should run.
	Shutdown <-chan struct{}
	// Boot replaces the host's boot id, for tests that reboot a node.
	Boot string
	// Hypervisor, unless nil, stands between the agent and its driver, for tests that
	// disturb it.
	Hypervisor func(hypervisor.Driver) hypervisor.Driver
	// SwapPatience is agent.Config's.
	SwapPatience time.Duration
	Version      string
	Clock        clock.Clock
	Log          *slog.Logger
	// Started is called once guests were adopted and commands could be served: from
	// then on the node does what it can without a server.
	Started func()
	// Ready is called once the first server has welcomed the node.
	Ready func()
}

// drivers is what a node works with.
type drivers struct {
	hypervisor func(hypervisor.Sink) (hypervisor.Driver, error)
	volumes    volume.Driver
	images     agent.Images
	// inPool opens the volumes in a folder of a storage pool.
	inPool    func(folder string) (volume.Driver, error)
	inventory func(context.Context, hypervisor.Driver) (nodelink.Inventory, error)
	volatile  bool
}

// Run is a real node until ctx ends. Guests outlive it.
func Run(ctx context.Context, o Options) error {
	return run(ctx, o, false, func(who *identity) (drivers, error) { return hostDrivers(o, who) })
}

func run(ctx context.Context, o Options, simulated bool, open func(*identity) (drivers, error)) error {
	lock, err := lockDir(o.DataDir, o.Clock)
	if err != nil {
		return err
	}
	defer lock.Close()
	if !joined(o.DataDir) && o.Join != "" {
		if err := Join(ctx, o.DataDir, nodeName(o.Name), o.Join, simulated, o.Clock); err != nil {
			return err
		}
	}
	who, err := loadIdentity(o.DataDir, o.Clock)
	if err != nil {
		return err
	}
	d, err := open(who)
	if err != nil {
		return err
	}
	return serve(ctx, o, who, d)
}

func nodeName(name string) string {
	if name != "" {
		return name
	}
	host, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return host
}

func serve(ctx context.Context, o Options, who *identity, d drivers) error {
	boot := o.Boot
	if boot == "" {
		var err error
		if boot, err = bootID(); err != nil {
			return err
		}
	}
	pools, err := openPools(o, who, boot, d)
	if err != nil {
		return err
	}
	var driver hypervisor.Driver
	peers := &neighbours{who: who, log: o.Log, fixed: o.PeerAddress}
	if d.volatile {
		peers.fixed = noPeers
	}
	a, err := agent.New(agent.Config{
		Node: who.state.Node, Name: who.state.Name, Cluster: who.state.Cluster, Follow: who.follow, Epoch: who.state.Epoch,
		DataDir: o.DataDir, Boot: boot,
		NewHypervisor: func(s hypervisor.Sink) (h hypervisor.Driver, err error) {
			driver, err = d.hypervisor(s)
			if err == nil && o.Hypervisor != nil {
				driver = o.Hypervisor(driver)
			}
			return driver, err
		},
		Volumes:    d.volumes,
		Pools:      pools,
		Images:     d.images,
		Neighbours: peers,
		Inventory: func(ctx context.Context) (nodelink.Inventory, error) {
			inv, err := d.inventory(ctx, driver)
			inv.LiveMigration = inv.LiveMigration && peers.fixed != noPeers
			inv.WarmMigration = inv.WarmMigration && inv.LiveMigration
			return inv, err
		},
		Collectors:   collectors(who, d),
		Clock:        o.Clock,
		Log:          o.Log,
		Volatile:     d.volatile,
		SwapPatience: o.SwapPatience,
	})
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Start(ctx); err != nil {
		return err
	}
	if o.Started != nil {
		o.Started()
	}
	l := &links{agent: a, who: who, discover: o.Discover, peers: peers, clock: o.Clock, log: o.Log, version: o.Version, kept: map[string]bool{}, refused: make(chan *x509.Certificate, 1), up: make(chan struct{})}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { a.Housekeep(ctx) })
	if o.Ready != nil {
		wg.Go(func() {
			select {
			case <-l.up:
				o.Ready()
			case <-ctx.Done():
			}
		})
	}
	l.run(ctx, o.Servers)
	select {
	case <-o.Shutdown:
		return a.ShutdownGuests(context.WithoutCancel(ctx), shutdownGrace)
	default:
		return nil
	}
}

// shutdownGrace is how long guests may take when their node stops.
const shutdownGrace = 20 * time.Second

// must have a place for volumes and images beneath the node's folder.
func folders(o Options) (volumes, images string) {
	return filepath.Join(o.DataDir, "volumes"), filepath.Join(o.DataDir, "images")
}

// firstError gives the first real failure of several nodes, if any.
func firstError(all []error) error {
	for _, err := range all {
		if err != nil && !errors.Is(err, context.Canceled) && !errs.Is(err, errs.Cancelled) {
			return err
		}
	}
	return nil
}
