package store

import (
	"context"
	"encoding/json"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// NodePlan is what a node is to do by itself.
type NodePlan struct {
	Node id.ID
	Plan nodelink.HostPlan
	// Told is the digest of the plan that the node has; empty when it has none.
	Told string
}

// NodePlans reads what nodes are to do when their hosts start and shut down.
func (s *Store) NodePlans(ctx context.Context, nodes []id.ID) ([]NodePlan, error) {
	rows, err := s.q.NodePlans(ctx, nodes)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	out := make([]NodePlan, len(rows))
	for i, r := range rows {
		out[i] = NodePlan{Node: r.ID, Told: r.PlanTold, Plan: nodelink.HostPlan{Shutdown: r.ShutdownPolicy}}
		if err := json.Unmarshal(r.Vms, &out[i].Plan.VMs); err != nil {
			return nil, errs.New(errs.Internal, "the plan of node %s cannot be read", r.ID).Because(err)
		}
	}
	return out, nil
}

// NodePlanNumber gives the number of the next plan a node is told.
func (s *Store) NodePlanNumber(ctx context.Context, n id.ID) (int64, error) {
	seq, err := s.q.NodePlanNumber(ctx, n)
	return seq, one(err, "node", n.String())
}

// NodePlanTold notes that a node has the plan of a number, unless a later one is
// under way.
func (s *Store) NodePlanTold(ctx context.Context, n id.ID, seq int64, digest string) error {
	return pgtx.Map(s.q.NodePlanTold(ctx, query.NodePlanToldParams{ID: n, Seq: seq, Digest: digest}))
}

// NodePlanHas notes which plan a node says it has.
func (t *Tx) NodePlanHas(ctx context.Context, n id.ID, digest string) error {
	return pgtx.Map(t.q.NodePlanHas(ctx, query.NodePlanHasParams{ID: n, Digest: digest}))
}

// NodeSetMigrations records how many VMs may leave a node, and come to it, at once, and what
// the node gives to all of them.
// revision, unless nil, is the one the caller has seen.
func (t *Tx) NodeSetMigrations(ctx context.Context, n node.Node, m node.Migrations, revision *int64) error {
	rows, err := t.q.NodeSetMigrations(ctx, query.NodeSetMigrationsParams{ID: n.ID, MostOut: int16(m.Out), MostIn: int16(m.In), BytesPerSecond: m.BytesPerSecond, Revision: revision})
	return t.nodeSet(ctx, n, rows, err)
}

// NodeSetShutdown records what a node does with its guests when its host shuts
// down. revision, unless nil, is the one the caller has seen.
func (t *Tx) NodeSetShutdown(ctx context.Context, n node.Node, p node.ShutdownPolicy, revision *int64) error {
	rows, err := t.q.NodeSetShutdown(ctx, query.NodeSetShutdownParams{ID: n.ID, Policy: string(p), Revision: revision})
	return t.nodeSet(ctx, n, rows, err)
}

// nodeSet tells of a change of a node's row, or why there was none.
func (t *Tx) nodeSet(ctx context.Context, n node.Node, rows int64, err error) error {
	if err == nil && rows == 0 {
		err = errs.New(errs.RevisionMismatch, "node %q is at revision %d: somebody changed it; read it again", n.Name, n.Revision)
	}
	if err != nil {
		return pgtx.Map(err)
	}
	return t.NodeChanged(ctx, n)
}
