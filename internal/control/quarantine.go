package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Quarantine is what becomes of a node that does what no agent does: it may be in
// other hands. It is held, as one that knows more than the database is, and no
// server speaks with it any more: what it says counts for nothing. Its guests are
// left as they are. An operator looks, and releases it.
func (s *Service) Quarantine(ctx context.Context, which id.ID, what string) error {
	n, err := s.cfg.Store.NodeGet(ctx, which.String())
	if err != nil {
		return err
	}
	err = s.change(ctx, func(tx *store.Tx) error {
		fresh, err := tx.NodeQuarantine(ctx, n, what)
		if err != nil || !fresh {
			return err
		}
		s.cfg.Log.Error("a node is in quarantine: look at its host, then release it", "node", n.Name, "why", what)
		return tx.AuditInsert(ctx, audit.Record{
			Principal: "node " + n.Name, Role: "node", Origin: "session", Action: "node.quarantine", ObjectKind: "node", ObjectID: &n.ID, ObjectName: n.Name,
			Outcome: audit.Denied, Detail: map[string]any{"reason": what},
		})
	})
	if err != nil {
		return err
	}
	return s.holds.Refresh(ctx)
}

// ReleaseNode ends a node's quarantine. What it holds is compared with the database
// when it comes, as always.
func (s *Service) ReleaseNode(ctx context.Context, c Caller, ref string) (node.Node, error) {
	var n node.Node
	err := s.change(ctx, func(tx *store.Tx) (err error) {
		if n, err = tx.NodeGet(ctx, ref); err != nil {
			return err
		}
		released, err := tx.NodeRelease(ctx, n)
		if err != nil {
			return err
		}
		if !released {
			return errs.New(errs.InvalidState, "node %q is not in quarantine: there is nothing to release it from", n.Name)
		}
		return tx.AuditInsert(ctx, c.record("node.release", "node", n.ID, n.Name))
	})
	if err != nil {
		return n, err
	}
	if err := s.holds.Refresh(ctx); err != nil {
		return n, err
	}
	s.roomMade()
	return s.Node(ctx, n.ID.String())
}
