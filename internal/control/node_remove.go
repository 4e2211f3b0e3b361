package control

import (
	"context"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// RemoveNodeByForce removes a node that is gone for good, with the VMs on it. The
// caller states that its host is off and stays off: that is the proof by which
// ownership of its VMs returns to the control plane. In one transaction the node
// is out of the cluster, its VMs lose their placement under a raised epoch, what
// they took is given back, and jobs that waited for the node go on without it.
func (s *Service) RemoveNodeByForce(ctx context.Context, c Caller, ref string, revision *int64) (node.Node, error) {
	var n node.Node
	err := s.change(ctx, func(tx *store.Tx) (err error) {
		if n, err = tx.NodeGet(ctx, ref); err != nil {
			return err
		}
		if err := s.holds.On(nil); err != nil {
			return err
		}
		n.Reporting = s.cfg.Live.Reporting(n.ID)
		if err := n.RemoveByForce(s.cfg.Live.Silent(n.ID, n.LeaseSeq)); err != nil {
			return err
		}
		lost, err := tx.NodeRemoveByForce(ctx, n, revision)
		if err != nil {
			return err
		}
		if err := releaseJobs(ctx, tx, lost); err != nil {
			return err
		}
		if err := wakeHeld(ctx, tx, n.ID); err != nil { // migrations from it and to it
			return err
		}
		r := c.record("node.remove", "node", n.ID, n.Name)
		r.Detail = map[string]any{"forced": true, "vms": named(lost)}
		return tx.AuditInsert(ctx, r)
	})
	return n, err
}

// releaseJobs lets jobs go on that waited for a node that is gone now, and those
// that had stopped half-way because of it.
func releaseJobs(ctx context.Context, tx *store.Tx, lost []store.LostVM) error {
	var held []id.ID
	for _, v := range lost {
		if v.Job == nil {
			continue
		}
		held = append(held, v.ID)
		if v.Attention {
			if err := workflow.Retry(ctx, tx, *v.Job); err != nil {
				return err
			}
		}
	}
	if len(held) > 0 {
		if _, err := workflow.Wake(ctx, tx, workflow.Filter{TargetKind: "vm", Targets: held}); err != nil {
			return err
		}
	}
	_, err := workflow.Wake(ctx, tx, workflow.Filter{Kind: flows.JobImageDelete})
	return err
}

// named is how the audit log names the VMs that were lost.
func named(lost []store.LostVM) []map[string]string {
	out := make([]map[string]string, 0, len(lost))
	for _, v := range lost {
		out = append(out, map[string]string{"id": v.ID.String(), "name": v.Name})
	}
	return out
}
