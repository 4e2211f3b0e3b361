package controltest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/id"
)

// servedLease is long: nobody's lease runs out in these tests.
const servedLease = time.Hour

// up is the way of a node's agent to the use-cases.
type up struct{ n *Node }

var _ agent.Up = up{}

// Call implements agent.Up.
func (u up) Call(ctx context.Context, method string, req, reply any) error {
	s := u.n.cluster.Service
	var out any
	var err error
	switch r := req.(type) {
	case nodelink.Reports:
		out, err = s.Reports(ctx, u.n.ID, r.NodeEpoch, r.Items)
	case nodelink.Heartbeat:
		out = s.Beat(u.n.ID, r)
	default:
		return fmt.Errorf("a node calls %s", method)
	}
	if err != nil {
		return err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, reply)
}

// Serve has the node's agent tell what it sees, as its session would, until ctx
// ends or the agent does.
func (n *Node) Serve(ctx context.Context) {
	n.mu.Lock()
	a := n.agent
	n.mu.Unlock()
	_ = a.Serve(ctx, up{n}, servedLease, func([]string) {})
}

// LosePlan removes what the node knows of its host's start, while its agent is away.
func (n *Node) LosePlan() error { return os.Remove(filepath.Join(n.dir, "host-plan.json")) }

// Saved counts the saved memories of a VM.
func (n *Node) Saved(v id.ID) int {
	found, _ := filepath.Glob(filepath.Join(n.dir, "suspended", v.String()+".memory"))
	return len(found)
}

// LoseSaved removes the saved memory of a VM from the node.
func (n *Node) LoseSaved(v id.ID) error {
	return os.Remove(filepath.Join(n.dir, "suspended", v.String()+".memory"))
}

// shutdownGrace is for guests that are asked to shut down.
const shutdownGrace = 100 * time.Millisecond

// ShutDown ends the node in order, as its process does when its host shuts down.
func (n *Node) ShutDown(ctx context.Context) error {
	n.mu.Lock()
	a := n.agent
	n.mu.Unlock()
	err := a.ShutdownGuests(ctx, shutdownGrace)
	n.Kill()
	return err
}
