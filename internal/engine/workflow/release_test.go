package workflow_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Release gives back what the dead held, and nothing of the living.
func TestRelease(t *testing.T) {
	db := storetest.New(t)
	dead, alive := id.New(), id.New()
	for _, holder := range []id.ID{dead, dead, alive} {
		j := id.New()
		err := pgtx.Run(t.Context(), db.App, func(tx pgx.Tx) error {
			if err := workflow.Enqueue(t.Context(), tx, workflow.NewJob{
				ID: j, Kind: "test", Target: workflow.Target{Kind: "vm", ID: id.New(), Name: "a"}, Params: struct{}{}, CreatedBy: "test",
			}); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "UPDATE jobs SET state = 'running', holder = $2, fence = 1 WHERE id = $1", j, holder)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n, err := workflow.Release(t.Context(), db.App, []id.ID{dead})
	if err != nil || n != 2 {
		t.Fatalf("released %d, %v", n, err)
	}
	var held, free int
	err = db.App.QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE holder = $1), count(*) FILTER (WHERE holder IS NULL AND state = 'running') FROM jobs", alive).
		Scan(&held, &free)
	if err != nil || held != 1 || free != 2 {
		t.Errorf("held %d, free %d, %v", held, free, err)
	}
	if n, err := workflow.Release(t.Context(), db.App, nil); n != 0 || err != nil {
		t.Errorf("nobody dead: %d %v", n, err)
	}
}
