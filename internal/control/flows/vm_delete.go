package flows

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
)

// VMDelete removes a VM: its process, its disks, what its node holds, its row.
// There is no way back from the first step on: half a VM helps nobody, so the
// job goes on until everything is gone. While the VM's node is away it waits and
// says so; it goes on when the node returns, or when an operator removes the node
// by force: then nothing of the VM is left to remove. What a node that is there
// cannot do stops it as needs_attention, naming what is left.
func VMDelete() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobDelete,
		Steps: []workflow.Step[Env]{
			// the point of no return comes first: after it, nobody starts the VM again
			{Name: "mark", NoReturn: true, InDatabase: true, Do: func(ctx context.Context, r *run) (any, error) {
				return nil, write(ctx, r, func(tx *store.Tx) error {
					if err := tx.VMSetPower(ctx, r.Job.Target.ID, false); err != nil {
						return err
					}
					return tx.VMSetDeleting(ctx, r.Job.Target.ID)
				})
			}},
			{Name: "power off", Do: untilReached("the VM is removed", powerOff)},
			{Name: "erase", Do: untilReached("the VM is removed", func(ctx context.Context, r *run) (any, error) { return nil, erase(ctx, r) })},
		},
		// the row goes in the transaction that ends the job
		Finish: func(ctx context.Context, tx pgx.Tx, r *run, _ workflow.Outcome) error {
			t := store.On(tx)
			v, err := t.VMByID(ctx, r.Job.Target.ID)
			if err != nil {
				return err
			}
			return t.VMDelete(ctx, v, &r.Job.ID)
		},
	}
}
