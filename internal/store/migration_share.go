package store

import (
	"context"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// MigrationFlows gives the migrations whose turn has come, with what limits each.
func (s *Store) MigrationFlows(ctx context.Context) ([]migration.Flow, error) {
	return migrationFlows(ctx, s.q)
}

// MigrationFlows is Store.MigrationFlows within a transaction.
func (t *Tx) MigrationFlows(ctx context.Context) ([]migration.Flow, error) {
	return migrationFlows(ctx, t.q)
}

func migrationFlows(ctx context.Context, q *query.Queries) ([]migration.Flow, error) {
	rows, err := q.MigrationFlows(ctx)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	out := make([]migration.Flow, 0, len(rows))
	for _, r := range rows {
		out = append(out, migration.Flow{ID: r.ID, Source: r.SourceNodeID, Target: r.TargetNodeID, SourceRate: r.SourceRate, TargetRate: r.TargetRate, Most: r.Most})
	}
	return out, nil
}

// MigrationShare notes what a migration is given of its nodes, in bytes per second; 0 for no
// limit. Of one that has ended it changes nothing.
func (t *Tx) MigrationShare(ctx context.Context, m id.ID, share int64) error {
	return pgtx.Map(t.q.MigrationShare(ctx, query.MigrationShareParams{ID: m, Share: share}))
}
