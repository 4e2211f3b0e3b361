package flows

import (
	"context"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// shareOf is what a migration is given now of what its nodes give to all of theirs, in bytes
// per second; 0 for no limit. Each migration looks by itself: from the same rows all come to
// shares that agree. Where nobody can tell, it keeps what it has.
func shareOf(ctx context.Context, r *run, has int64) int64 {
	flows, err := r.Env.Store.MigrationFlows(ctx)
	if err != nil {
		return has
	}
	share := migration.Shares(flows)[r.Job.ID]
	if share != has {
		// for people; what is not on record now is at the next change
		_ = write(ctx, r, func(tx *store.Tx) error { return tx.MigrationShare(ctx, r.Job.ID, share) })
	}
	return share
}

// pacer keeps a migration that is under way at its share.
type pacer struct{ has int64 }

// shareIn gives the share that a migration begins with, and notes it.
func shareIn(ctx context.Context, tx *store.Tx, m id.ID) (int64, error) {
	flows, err := tx.MigrationFlows(ctx)
	if err != nil {
		return 0, err
	}
	share := migration.Shares(flows)[m]
	return share, tx.MigrationShare(ctx, m, share)
}

// keep has the source send at another pace where the share has changed. A source that
// cannot be told is told at the next look.
func (p *pacer) keep(ctx context.Context, r *run, m moving) {
	share := shareOf(ctx, r, p.has)
	if share == p.has {
		return
	}
	cmd := &nodelink.PaceMove{VM: m.v.Intent.ID, Migration: r.Job.ID, BytesPerSecond: share}
	if r.Env.Nodes.Call(ctx, m.Source, cmd, nil) == nil {
		p.has = share
	}
}
