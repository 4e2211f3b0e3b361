package flows_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
)

// What holds of the workflows that disks take part in holds of VMs with a disk in a storage
// pool: whatever fails, is repeated or killed at whatever step, the disk is there or gone,
// no node removes another's, and who executes has the claim.
func TestProofsInAPool(t *testing.T) {
	for _, f := range flows.All() {
		p := proofs[f.Name]
		if p.others || !takesDisks(f.Name) {
			continue
		}
		check := p.check
		p.check = func(ctx context.Context, w *world, name string, end job.State) error {
			if err := check(ctx, w, name, end); err != nil {
				return err
			}
			return claimed(ctx, w)
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			prove.Prove(t, prove.Subject[flows.Env]{Flow: f, Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
				return newWorld(controltest.NewSharing(tb, 2), p)
			}})
		})
	}
}

func takesDisks(flow string) bool {
	switch flow {
	case vm.JobCreate, vm.JobStart, vm.JobStop, vm.JobSuspend, vm.JobDelete, vm.JobClone, vm.JobMigrate, vm.JobMigrateLive, vm.JobMigrateWarm, vm.JobDiskAdd, vm.JobDiskGrow, vm.JobDiskRemove:
		return true
	}
	return false
}

// claimed compares claims with who executes.
func claimed(ctx context.Context, w *world) error {
	for _, n := range w.Nodes {
		for v := range n.Host.Executing() {
			of, err := w.Store.VMByID(ctx, v)
			if err != nil {
				return err
			}
			for _, d := range of.Volumes {
				if d.PoolID == nil {
					continue
				}
				c, err := w.Claim(d.ID)
				if err != nil || c == nil || c.Node != n.ID || !c.Held || c.Epoch > of.Intent.Epoch {
					return fmt.Errorf("VM %s executes on %s under %d, and the claim of its disk is %+v, %w", of.Intent.Name, n.Name, of.Intent.Epoch, c, err)
				}
			}
		}
	}
	return nil
}
