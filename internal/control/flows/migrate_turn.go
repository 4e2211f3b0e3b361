package flows

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// lookForTurn is how long a migration sleeps between two looks whether it is its turn; the
// end of another wakes it.
const lookForTurn = 2 * time.Second

// waitTurn is a step of every migration, before it copies anything: no node takes part in
// more than it is to at once. It waits, and says for what.
func waitTurn(ctx context.Context, r *run) (any, error) {
	var why string
	err := write(ctx, r, func(tx *store.Tx) error {
		queue, err := tx.MigrationQueue(ctx)
		if err != nil {
			return err
		}
		for i, q := range queue {
			queue[i].Parked = parked(r, q.Source.Node) || parked(r, q.Target.Node)
		}
		var turn bool
		if turn, why = migration.Turn(queue, r.Job.ID); !turn {
			return nil
		}
		return tx.MigrationBegin(ctx, r.Job.ID)
	})
	if err == nil && why != "" {
		err = workflow.Wait(why, lookForTurn)
	}
	return nil, err
}

// parked tells whether nothing can begin on a node, so that it is nobody's turn there.
func parked(r *run, n id.ID) bool {
	return !r.Env.Candidates.Reporting(n) || r.Env.Holds != nil && r.Env.Holds.On(&n) != nil
}

// nextTurn has those look that wait for their turn.
func nextTurn(ctx context.Context, tx pgx.Tx) error {
	for _, kind := range []string{vm.JobMigrate, vm.JobMigrateLive, vm.JobMigrateWarm} {
		if _, err := workflow.Wake(ctx, tx, workflow.Filter{Kind: kind}); err != nil {
			return err
		}
	}
	return nil
}
