package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/storage"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Pools gives a page of storage pools.
func (s *Service) Pools(ctx context.Context, p store.Page) ([]storage.Pool, *store.Next, error) {
	return s.cfg.Store.PoolList(ctx, p)
}

// Pool gives one storage pool, by its name or id.
func (s *Service) Pool(ctx context.Context, ref string) (storage.Pool, error) {
	return s.cfg.Store.PoolGet(ctx, ref)
}

// DeletePool forgets a storage pool that no disk is in and no node has. What is in its
// place stays there.
func (s *Service) DeletePool(ctx context.Context, c Caller, ref string) error {
	return s.change(ctx, func(tx *store.Tx) error {
		p, err := tx.PoolGet(ctx, ref)
		if err == nil {
			err = p.Delete()
		}
		if err == nil {
			err = tx.PoolDelete(ctx, p)
		}
		if err != nil {
			return err
		}
		if err := tx.EventInsert(ctx, store.Event{Kind: "storage_pool.deleted", ObjectKind: "storage_pool", ObjectID: p.ID, ObjectName: p.Name}); err != nil {
			return err
		}
		return tx.AuditInsert(ctx, c.record("storage_pool.delete", "storage_pool", p.ID, p.Name))
	})
}

// NodePools takes what a node says of its storage pools while its session lasts.
func (s *Service) NodePools(ctx context.Context, n id.ID, epoch gen.NodeEpoch, pools []nodelink.Pool) error {
	now, err := s.cfg.Store.NodeEpoch(ctx, n)
	if err != nil {
		return err
	}
	if now != epoch {
		return errs.New(errs.StaleEpoch, "agent incarnation %d of this node has been seen; this is %d", now, epoch)
	}
	if err := s.change(ctx, func(tx *store.Tx) error { return tx.NodePools(ctx, n, poolsOf(pools)) }); err != nil {
		return err
	}
	s.roomMade()
	return nil
}

// poolsOf is what of a node's word about its pools can be on record: a node that is not
// what it should be says anything.
func poolsOf(said []nodelink.Pool) (out []nodelink.Pool) {
	names := map[string]bool{}
	for _, p := range said {
		if id.CheckName("/name", p.Name) != nil || names[p.Name] || len(out) == nodelink.MostPools {
			continue
		}
		names[p.Name] = true
		p.Why, p.TotalBytes, p.FreeBytes = nodelink.Text(p.Why), max(p.TotalBytes, 0), max(p.FreeBytes, 0)
		out = append(out, p)
	}
	return out
}
