package control

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// PlansTold is what one look at nodes' plans did.
type PlansTold struct {
	Told int `json:"told"`
	// Old nodes do not know the command: their agents are of an earlier release.
	Old  int `json:"old"`
	Away int `json:"away"`
}

// planTime bounds telling one node: it writes a small file.
const planTime = 5 * time.Second

// TellPlans tells nodes what to do by themselves when their hosts start and shut
// down, wherever that is not what they have.
func (s *Service) TellPlans(ctx context.Context) (PlansTold, error) {
	var out PlansTold
	plans, err := s.cfg.Store.NodePlans(ctx, s.cfg.Live.AllReporting())
	if err != nil {
		return out, err
	}
	for _, p := range plans {
		if p.Plan.Digest() == p.Told || s.holds.Held(p.Node) {
			continue
		}
		err := s.tellPlan(ctx, p)
		switch errs.CodeOf(err) {
		case "":
			out.Told++
		case errs.Unsupported:
			out.Old++
		case errs.NodeUnreachable, errs.Timeout, errs.StaleEpoch, errs.NotFound, errs.HostFailure, errs.Cancelled:
			out.Away++ // the next look tries again
		default:
			return out, err
		}
	}
	return out, nil
}

func (s *Service) tellPlan(ctx context.Context, p store.NodePlan) error {
	var err error
	p.Plan.Cluster = s.cfg.Cluster.Incarnation
	if p.Plan.Seq, err = s.cfg.Store.NodePlanNumber(ctx, p.Node); err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, planTime)
	defer cancel()
	if err := s.cfg.Nodes.Call(timed, p.Node, &p.Plan, nil); err != nil {
		if timed.Err() != nil && ctx.Err() == nil {
			return errs.New(errs.Timeout, "the node does not answer").Because(err)
		}
		return err
	}
	return s.cfg.Store.NodePlanTold(ctx, p.Node, p.Plan.Seq, p.Plan.Digest())
}

// SetShutdown decides what a node does with its guests when its host shuts down.
func (s *Service) SetShutdown(ctx context.Context, c Caller, ref string, p node.ShutdownPolicy, revision *int64) (node.Node, error) {
	return s.UpdateNode(ctx, c, ref, node.Change{Shutdown: &p}, revision)
}

// UpdateNode changes what the operator decides about a node, all at once; revision, unless
// nil, is the one the caller has seen.
func (s *Service) UpdateNode(ctx context.Context, c Caller, ref string, change node.Change, revision *int64) (node.Node, error) {
	if err := change.Validate(); err != nil {
		return node.Node{}, err
	}
	var n node.Node
	err := s.change(ctx, func(tx *store.Tx) (err error) {
		if n, err = tx.NodeGet(ctx, ref); err != nil {
			return err
		}
		if err := setMigrations(ctx, tx, c, n, change, revision); err != nil || change.Shutdown == nil {
			return err
		}
		if change.Migrates() {
			revision = nil // it was compared, and has risen
		}
		return setShutdown(ctx, tx, c, n, *change.Shutdown, revision)
	})
	if err != nil {
		return n, err
	}
	return s.Node(ctx, n.ID.String())
}

// setMigrations decides how many VMs may leave a node, and come to it, at once, and what it
// gives to them.
func setMigrations(ctx context.Context, tx *store.Tx, c Caller, n node.Node, change node.Change, revision *int64) error {
	if !change.Migrates() {
		return nil
	}
	if n.State == node.Removed {
		return errs.New(errs.InvalidState, "node %q is removed", n.Name)
	}
	to := change.Migrations(n.Migrations)
	if err := tx.NodeSetMigrations(ctx, n, to, revision); err != nil {
		return err
	}
	r := c.record("node.update", "node", n.ID, n.Name)
	r.Detail = map[string]any{
		"migrations_out": map[string]any{"from": n.Migrations.Out, "to": to.Out}, "migrations_in": map[string]any{"from": n.Migrations.In, "to": to.In},
		"migration_bytes_per_second": map[string]any{"from": n.Migrations.BytesPerSecond, "to": to.BytesPerSecond},
	}
	return tx.AuditInsert(ctx, r)
}

func setShutdown(ctx context.Context, tx *store.Tx, c Caller, n node.Node, p node.ShutdownPolicy, revision *int64) error {
	if n.State == node.Removed {
		return errs.New(errs.InvalidState, "node %q is removed", n.Name)
	}
	if n.Shutdown == p && revision == nil {
		return nil
	}
	if err := tx.NodeSetShutdown(ctx, n, p, revision); err != nil {
		return err
	}
	r := c.record("node.update", "node", n.ID, n.Name)
	r.Detail = map[string]any{"shutdown_policy": map[string]any{"from": n.Shutdown, "to": p}}
	return tx.AuditInsert(ctx, r)
}
