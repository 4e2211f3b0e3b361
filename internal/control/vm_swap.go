package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// SwapVM gives a VM that runs to the node that has received it, if it still is the
// source's: one compare-and-swap, and the same answer again for the same migration. An
// error says nothing of whose the VM is. The target asks all servers at once: each reads
// under a lock, since a refusal that comes from rows before and after another's commit
// would end a VM that its target owns.
func (s *Service) SwapVM(ctx context.Context, to id.ID, r nodelink.Swap) (nodelink.SwapReply, error) {
	if err := s.holds.On(&to); err != nil {
		return nodelink.SwapReply{}, err
	}
	var out nodelink.SwapReply
	err := s.change(ctx, func(tx *store.Tx) (err error) {
		if err := tx.VMKeepOwner(ctx, r.VM); err != nil {
			return err
		}
		m, err := tx.MigrationEnds(ctx, r.Migration)
		switch {
		case errs.Is(err, errs.NotFound):
			out, err = swapUnknown(ctx, tx, r)
			return err
		case err != nil:
			return err
		case m.VM != r.VM || m.Target.Node != to:
			out = refused(nodelink.Disowned, "the migration is of another VM, or to another node")
			return nil
		}
		out, err = swapFor(ctx, tx, m, r)
		return err
	})
	return out, err
}

// swapUnknown refuses the swap of a migration that is not on record. Records of migrations
// outlive their VMs, so that the database is behind: the nodes know more than it does, and no
// guest is ended for that. One whose owner it knows to have changed is another's.
func swapUnknown(ctx context.Context, tx *store.Tx, r nodelink.Swap) (nodelink.SwapReply, error) {
	v, err := tx.VMByID(ctx, r.VM)
	switch {
	case err != nil && !errs.Is(err, errs.NotFound):
		return nodelink.SwapReply{}, err
	case err == nil && v.Intent.Epoch > r.Epoch:
		return refused(nodelink.Disowned, "there is no such migration, and the VM's owner has changed"), nil
	}
	return refused(nodelink.Abandoned, "there is no such migration"), nil
}

func refused(v nodelink.Verdict, why string) nodelink.SwapReply {
	return nodelink.SwapReply{Verdict: v, Why: why}
}

func owns(v vm.View, n id.ID, epoch gen.OwnerEpoch) bool {
	return v.Intent.NodeID != nil && *v.Intent.NodeID == n && v.Intent.Epoch == epoch
}

// swapFor swaps a VM for the target of its migration, or tells whose it is.
func swapFor(ctx context.Context, tx *store.Tx, m migration.Migration, r nodelink.Swap) (nodelink.SwapReply, error) {
	v, err := tx.VMByID(ctx, r.VM)
	if errs.Is(err, errs.NotFound) {
		return refused(nodelink.Disowned, "the VM is gone"), nil
	}
	if err != nil {
		return nodelink.SwapReply{}, err
	}
	if m.SwappedEpoch == r.Epoch+1 && owns(v, m.Target.Node, m.SwappedEpoch) {
		return nodelink.SwapReply{Verdict: nodelink.Swapped, Epoch: m.SwappedEpoch}, nil // asked again
	}
	var epoch gen.OwnerEpoch
	if m.Closed {
		err = errs.New(errs.StaleEpoch, "the migration is being taken back")
	} else {
		epoch, err = tx.VMSwap(ctx, v, store.Swap{Migration: m.ID, From: m.Source.Node, To: m.Target.Node, Epoch: r.Epoch})
	}
	switch {
	case err == nil:
		return nodelink.SwapReply{Verdict: nodelink.Swapped, Epoch: epoch}, nil
	case !errs.Is(err, errs.StaleEpoch) && !errs.Is(err, errs.NodeRemoved):
		return nodelink.SwapReply{}, err
	case owns(v, m.Source.Node, r.Epoch):
		return refused(nodelink.Abandoned, errs.As(err).Message), nil // the source's still
	}
	return refused(nodelink.Disowned, errs.As(err).Message), nil
}
