package controltest

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// Reboot cuts the host's power and starts its agent again, with no control plane
// in sight: it says hello to nobody.
func (n *Node) Reboot(ctx context.Context) error {
	n.Kill()
	n.Host.PowerLoss()
	n.boots++
	return n.startAgent(ctx)
}

func (n *Node) startAgent(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.epoch++
	a, err := agent.New(agent.Config{
		Node: n.ID, Cluster: n.cluster.Env.Cluster, Epoch: n.epoch, DataDir: n.dir, Boot: fmt.Sprint("boot ", n.boots),
		NewHypervisor: n.Host.Hypervisor, Volumes: n.Host.Volumes(), Pools: n.pools(), Images: n.Host.Images(), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Volatile: true,
		SwapPatience: swapPatience, StallWindow: stallWindow,
		Neighbours: side{&n.cluster.lane, n},
		Inventory:  func(context.Context) (nodelink.Inventory, error) { return nodelink.Inventory{}, nil },
	})
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	a.Reach(uplink{n})
	n.agent = a
	return nil
}

// Kill ends the node's agent as kill -9 does; guests go on.
func (n *Node) Kill() {
	n.mu.Lock()
	a := n.agent
	n.agent = nil
	n.mu.Unlock()
	if a != nil {
		_ = a.Close() // without the lock: it may be about to call up
	}
}

// SetDown cuts the node off, or back on.
func (n *Node) SetDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}
