package flows

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// maxAge is how old a snapshot of the nodes may be. Placement re-checks at
// commit, so an old one costs a second choice and never a wrong one; reading
// hundreds of nodes anew for each of hundreds of VMs costs the whole server.
const maxAge = 200 * time.Millisecond

// Candidates are the nodes as placement sees them: a snapshot that many
// placements share for a moment, with what they took of it since.
type Candidates struct {
	store     *store.Store
	reporting func(node id.ID) bool
	holds     Holds
	clock     clock.Clock

	mu    sync.Mutex
	nodes []node.Node
	read  time.Duration
}

// NewCandidates reads nodes from the store; reporting judges their leases by this
// server's own clock. holds may be nil.
func NewCandidates(s *store.Store, reporting func(id.ID) bool, holds Holds, c clock.Clock) *Candidates {
	return &Candidates{store: s, reporting: reporting, holds: holds, clock: c}
}

// Reporting tells whether a node's lease is good, as this server's own clock tells.
func (c *Candidates) Reporting(n id.ID) bool { return c.reporting(n) }

// Snapshot gives all nodes, at most maxAge old.
func (c *Candidates) Snapshot(ctx context.Context) ([]node.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil || c.clock.Boot()-c.read > maxAge {
		began := c.clock.Boot()
		nodes, err := c.readAll(ctx)
		if err != nil {
			return nil, err
		}
		c.nodes, c.read = nodes, began
	}
	return c.judged(), nil
}

// Recent is Snapshot without reading: false when the last one is too old.
func (c *Candidates) Recent() ([]node.Node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil || c.clock.Boot()-c.read > maxAge {
		return nil, false
	}
	return c.judged(), true
}

func (c *Candidates) judged() []node.Node {
	for i := range c.nodes {
		c.nodes[i].Reporting = c.reporting(c.nodes[i].ID)
		c.nodes[i].Held = c.holds != nil && c.holds.On(&c.nodes[i].ID) != nil
	}
	return slices.Clone(c.nodes)
}

func (c *Candidates) readAll(ctx context.Context) ([]node.Node, error) {
	all := []node.Node{}
	page := store.Page{Limit: 500}
	for {
		nodes, next, err := c.store.NodeList(ctx, page)
		if err != nil {
			return nil, err
		}
		all = append(all, nodes...)
		if next == nil {
			return all, nil
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
}

// Took notes a placement, so that the next one from the same snapshot does not
// crowd onto the same node.
func (c *Candidates) Took(n id.ID, r node.Resources) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.nodes {
		if c.nodes[i].ID == n {
			for _, u := range []*node.Resources{&c.nodes[i].Used, &c.nodes[i].Committed} {
				u.CPUs, u.MemoryBytes, u.DiskBytes = u.CPUs+r.CPUs, u.MemoryBytes+r.MemoryBytes, u.DiskBytes+r.DiskBytes
			}
		}
	}
}
