package control

import (
	"context"
	"slices"

	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// LastDrain gives the newest drain of a node, or return to it, with how far each VM is.
func (s *Service) LastDrain(ctx context.Context, ref string) (drain.Drain, error) {
	n, err := s.cfg.Store.NodeGet(ctx, ref)
	if err != nil {
		return drain.Drain{}, err
	}
	return s.cfg.Store.DrainLast(ctx, n.ID, n.Name)
}

// PlanDrain says what a drain of a node would do with each of its VMs. It changes
// nothing.
func (s *Service) PlanDrain(ctx context.Context, ref string, r drain.Request) (drain.Plan, error) {
	if err := r.Validate(); err != nil {
		return drain.Plan{}, err
	}
	n, err := s.drainable(ctx, ref)
	if err != nil {
		return drain.Plan{}, err
	}
	nodes, err := s.everyNode(ctx)
	if err != nil {
		return drain.Plan{}, err
	}
	vms, err := s.vmsOn(ctx, n.Name)
	return drain.PlanOf(vms, nodes, placeOf(n), r.Policy), err
}

// drainable gives a node that can be asked to let its VMs go, or to take them.
func (s *Service) drainable(ctx context.Context, ref string) (node.Node, error) {
	n, err := s.Node(ctx, ref)
	if err != nil {
		return n, err
	}
	if err := s.holds.On(&n.ID); err != nil {
		return n, err
	}
	if !n.Reporting {
		return n, errs.New(errs.NodeUnreachable, "node %q does not report, so nobody can tell what runs there: bring it back, or remove it by force if its host is off for good", n.Name)
	}
	return n, nil
}

func placeOf(n node.Node) migration.Place { return migration.Place{Node: n.ID, Name: n.Name} }

func (s *Service) everyNode(ctx context.Context) (all []node.Node, err error) {
	page := store.Page{Limit: 500}
	for {
		nodes, next, err := s.Nodes(ctx, page)
		all = append(all, nodes...)
		if err != nil || next == nil {
			return all, err
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
}

func (s *Service) vmsOn(ctx context.Context, node string) (all []vm.View, err error) {
	page := store.Page{Limit: 500, Filters: map[string]string{"node": node}}
	for {
		vms, next, err := s.VMs(ctx, page)
		all = append(all, vms...)
		if err != nil || next == nil {
			return all, err
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
}

// DrainNode cordons a node and empties it, as PlanDrain says. One that cannot be emptied
// is refused with what stands against it, unless what can be done is enough.
func (s *Service) DrainNode(ctx context.Context, c Caller, ref string, r drain.Request) (Accepted, error) {
	if err := r.Validate(); err != nil {
		return Accepted{}, err
	}
	// before the transaction: each VM is decided upon again when its turn comes
	plan, err := s.PlanDrain(ctx, ref, r)
	if err == nil && !r.Partial {
		err = plan.Fits()
	}
	if err != nil {
		return s.orAnswered(ctx, c, s.orDraining(ctx, plan.Node, err))
	}
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		n, err := tx.NodeGet(ctx, plan.Node.Node.String())
		if err == nil {
			err = tx.DrainRunning(ctx, n.ID, n.Name)
		}
		if err == nil {
			err = setNode(ctx, tx, c, n, node.Cordoned, nil)
		}
		if err != nil {
			return Accepted{}, err
		}
		return s.beginDrain(ctx, tx, c, drain.Drain{Node: plan.Node, Kind: drain.Empty, Request: r, Items: plan.Items})
	})
}

// orDraining tells of the drain that is under way rather than of what it has not done
// yet.
func (s *Service) orDraining(ctx context.Context, n migration.Place, refusal error) error {
	if !errs.Is(refusal, errs.InUse) {
		return refusal
	}
	err := s.cfg.Store.InTx(ctx, func(tx *store.Tx) error { return tx.DrainRunning(ctx, n.Node, n.Name) })
	if errs.Is(err, errs.Conflict) {
		return err
	}
	return refusal
}

func (s *Service) beginDrain(ctx context.Context, tx *store.Tx, c Caller, d drain.Drain) (Accepted, error) {
	d.ID, d.CreatedBy, d.RequestID = id.New(), c.Name, c.RequestID
	if err := tx.DrainInsert(ctx, d); err != nil {
		return Accepted{}, err
	}
	_, err := s.enqueue(ctx, tx, c, workflow.NewJob{
		ID: d.ID, Kind: d.Kind.Job(), Params: struct{}{}, Cancellable: true,
		Target: workflow.Target{Kind: "node", ID: d.Node.Node, Name: d.Node.Name},
	})
	if err != nil {
		return Accepted{}, err
	}
	return Accepted{Job: &d.ID, Object: d.Node.Node}, tx.AuditInsert(ctx, drained(c, d))
}

// drained is the audit record of a drain, or a return.
func drained(c Caller, d drain.Drain) (rec audit.Record) {
	rec = c.record(d.Kind.Job(), "node", d.Node.Node, d.Node.Name)
	rec.JobID = &d.ID
	left := []string{}
	for _, i := range d.In(drain.Left) {
		left = append(left, i.Name+": "+i.Why)
	}
	rec.Detail = map[string]any{
		"policy": d.Policy, "parallel": d.Parallel, "grace_seconds": d.Grace.Seconds(), "partial": d.Partial, "reason": d.Reason,
		"vms": len(d.Items), "left": left[:min(len(left), mostBlockers)],
	}
	return rec
}

// PlanReturn says how a node would get back what drains took from it. It changes
// nothing.
func (s *Service) PlanReturn(ctx context.Context, ref string, r drain.Request) (drain.Plan, error) {
	if err := r.Validate(); err != nil {
		return drain.Plan{}, err
	}
	n, err := s.drainable(ctx, ref)
	if err != nil {
		return drain.Plan{}, err
	}
	nodes, err := s.everyNode(ctx)
	if err != nil {
		return drain.Plan{}, err
	}
	at := slices.IndexFunc(nodes, func(other node.Node) bool { return other.ID == n.ID })
	if at >= 0 {
		nodes[at].State = node.Active // as it will be
	}
	taken, err := s.taken(ctx, n.ID)
	return drain.PlanRefill(taken, nodes, placeOf(n), r.Policy), err
}

// taken are the VMs that drains took from a node, as they are now; what was deleted
// since is not among them.
func (s *Service) taken(ctx context.Context, n id.ID) ([]drain.Taken, error) {
	items, err := s.cfg.Store.DrainTook(ctx, n)
	if err != nil {
		return nil, err
	}
	var out []drain.Taken
	for _, i := range items {
		v, err := s.VM(ctx, i.VM.String())
		if errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, drain.Taken{Item: i, VM: v})
	}
	return out, nil
}

// ReturnNode gives a node new VMs again and, with vms, what drains took from it. Without
// a job, nothing was left to do.
func (s *Service) ReturnNode(ctx context.Context, c Caller, ref string, vms bool, r drain.Request) (Accepted, error) {
	plan, err := s.PlanReturn(ctx, ref, r)
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return Accepted{}, err
	}
	if !vms {
		plan.Items = nil
	}
	out, err := s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		n, err := tx.NodeGet(ctx, plan.Node.Node.String())
		if err == nil {
			err = tx.DrainRunning(ctx, n.ID, n.Name)
		}
		if err == nil {
			err = setNode(ctx, tx, c, n, node.Active, nil)
		}
		if err != nil {
			return Accepted{}, err
		}
		d := drain.Drain{Node: plan.Node, Kind: drain.Refill, Request: r, Items: plan.Items}
		if len(d.In(drain.Queued)) > 0 {
			return s.beginDrain(ctx, tx, c, d)
		}
		// what drains took is not brought back later either
		d.ID, d.CreatedBy, d.RequestID = id.New(), c.Name, c.RequestID
		if err := tx.DrainInsert(ctx, d); err != nil {
			return Accepted{}, err
		}
		return Accepted{Object: n.ID}, tx.DrainEnd(ctx, d.ID, job.Succeeded)
	})
	if err == nil {
		s.roomMade()
	}
	return out, err
}
