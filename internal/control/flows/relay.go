package flows

import (
	"context"

	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// mayRelay lets any server join a node with another one's door, for who has the ticket,
// until the job has ended: should the one not reach the other.
func mayRelay(ctx context.Context, r *run, ticket string, from, to id.ID) error {
	return write(ctx, r, func(tx *store.Tx) error { return tx.RelayGrant(ctx, ticket, from, to, r.Job.ID) })
}

// relayed notes that a server carries the migration.
func relayed(ctx context.Context, r *run) error {
	return write(ctx, r, func(tx *store.Tx) error { return tx.MigrationRelayed(ctx, r.Job.ID) })
}
