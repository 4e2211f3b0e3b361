package store

import (
	"context"
	"crypto/sha256"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// RelayGrant lets a server join one node with another's door, while a job is under way, for
// whoever has the ticket, of which the hash is kept. Those of jobs that have ended go.
func (t *Tx) RelayGrant(ctx context.Context, ticket string, from, to, job id.ID) error {
	if err := t.q.RelayGrantSweep(ctx); err != nil {
		return pgtx.Map(err)
	}
	hash := sha256.Sum256([]byte(ticket))
	return pgtx.Map(t.q.RelayGrant(ctx, query.RelayGrantParams{TicketHash: hash[:], FromNodeID: from, ToNodeID: to, JobID: job}))
}

// RelayGranted tells whether a node may be joined with another one by a ticket.
func (s *Store) RelayGranted(ctx context.Context, ticket string, from, to id.ID) (bool, error) {
	hash := sha256.Sum256([]byte(ticket))
	ok, err := s.q.RelayGranted(ctx, query.RelayGrantedParams{TicketHash: hash[:], FromNodeID: from, ToNodeID: to})
	return ok, pgtx.Map(err)
}

// MigrationRelayed notes that a server carries a migration. Of one that has ended it changes
// nothing.
func (t *Tx) MigrationRelayed(ctx context.Context, m id.ID) error {
	return pgtx.Map(t.q.MigrationRelayed(ctx, m))
}
