package flows_test

import (
	"context"
	"fmt"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/id"
)

// limited looks whether a VM runs, and its second disk is limited so in its record and,
// where hosts tell, on its host.
func limited(ctx context.Context, w *world, name string, want vm.DiskLimits) error {
	if err := appears(ctx, w, name, vm.Running); err != nil {
		return err
	}
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	disk := v.Volumes[1]
	if disk.Limits != want {
		return fmt.Errorf("the record of VM %s has limits %+v, want %+v", name, disk.Limits, want)
	}
	for _, n := range w.Nodes {
		tells, ok := n.Host.(interface {
			Limits(v id.ID) (hypervisor.Limits, bool)
		})
		if !ok || n.ID != *v.Intent.NodeID {
			continue
		}
		has, live := tells.Limits(v.Intent.ID)
		if got := has.Disks[disk.ID]; !live || got != hypervisor.DiskLimits(want) {
			return fmt.Errorf("the host of VM %s has limits %+v, want %+v", name, got, want)
		}
	}
	return nil
}
