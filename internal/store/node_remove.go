package store

import (
	"context"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// LostVM is a VM that lost its node.
type LostVM struct {
	ID   id.ID
	Name string
	// Job holds it; nil when none does. Attention: it had stopped half-way.
	Job       *id.ID
	Attention bool
}

// NodeRemoveByForce removes a node together with the placement of its VMs, which
// it gives in the order of their names. The node must be locked (NodeGet), so
// that no VM comes to it meanwhile; revision, unless nil, is what the caller
// believed.
func (t *Tx) NodeRemoveByForce(ctx context.Context, n node.Node, revision *int64) ([]LostVM, error) {
	rows, err := t.q.VMsLose(ctx, n.ID)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	if err := t.q.MigrationsLose(ctx, n.ID); err != nil {
		return nil, pgtx.Map(err)
	}
	gone, err := t.q.NodeRemoveByForce(ctx, query.NodeRemoveByForceParams{ID: n.ID, Revision: revision})
	if err == nil && gone == 0 {
		err = errs.New(errs.RevisionMismatch, "node %q is at revision %d: somebody changed it; read it again", n.Name, n.Revision)
	}
	if err != nil {
		return nil, pgtx.Map(err)
	}
	if err := t.q.NodePoolsDrop(ctx, n.ID); err != nil {
		return nil, pgtx.Map(err)
	}
	var lost []LostVM
	for _, r := range rows {
		lost = append(lost, LostVM{ID: r.ID, Name: r.Name, Job: r.JobID, Attention: r.Attention})
	}
	return lost, t.NodeChanged(ctx, n)
}
