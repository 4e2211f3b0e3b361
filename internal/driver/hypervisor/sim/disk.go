package sim

import (
	"context"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.DiskGrower = (*Driver)(nil)

// GrowDisk implements contract.DiskGrower: the guest remembers the size.
func (d *Driver) GrowDisk(ctx context.Context, r contract.Ref, disk id.ID, size int64) error {
	return d.changes(ctx, r, func(g *guest) error {
		was, ok := g.disks[disk]
		switch {
		case !ok:
			return errs.New(errs.NotFound, "VM %s has no disk %s", r.VM, disk)
		case size < was:
			return errs.New(errs.ShrinkNotAllowed, "disk %s has %d bytes and cannot have %d", disk, was, size)
		}
		g.disks[disk] = size
		return nil
	})
}

// disksOf are a machine's disks, of sizes the simulator has not been told.
func disksOf(m contract.Machine) map[id.ID]int64 {
	out := map[id.ID]int64{}
	for _, d := range m.Disks {
		out[d.ID] = 0
	}
	return out
}
