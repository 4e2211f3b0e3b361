package qemu

import (
	"context"
	"slices"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.DiskGrower = (*Driver)(nil)

// GrowDisk implements contract.DiskGrower. QEMU would make an image smaller as
// well, so that its size is asked for first; only this driver changes it.
func (d *Driver) GrowDisk(ctx context.Context, r contract.Ref, disk id.ID, size int64) error {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return err
	}
	defer leave()
	g, err := d.started(r)
	if err != nil {
		return err
	}
	slot := slices.IndexFunc(g.rec.Machine.Disks, func(m contract.Disk) bool { return m.ID == disk })
	if slot < 0 {
		return errs.New(errs.NotFound, "VM %s has no disk %s", r.VM, disk)
	}
	was, err := g.diskSize(ctx, diskName(slot))
	switch {
	case err != nil:
		return err
	case size < was:
		return errs.New(errs.ShrinkNotAllowed, "disk %s has %d bytes and cannot have %d", disk, was, size)
	case size == was:
		return nil
	}
	return g.tell(ctx, "block_resize", object{"node-name": diskName(slot), "size": size}, nil)
}

// diskSize is what the hypervisor shows the guest of a disk.
func (g *guest) diskSize(ctx context.Context, node string) (int64, error) {
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Size int64 `json:"virtual-size"`
		} `json:"image"`
	}
	if err := g.tell(ctx, "query-named-block-nodes", object{"flat": true}, &nodes); err != nil {
		return 0, err
	}
	for _, n := range nodes {
		if n.Name == node && n.Image.Size > 0 {
			return n.Image.Size, nil
		}
	}
	return 0, errs.New(errs.HostFailure, "the hypervisor of VM %s does not know its disk %s", g.ref.VM, node)
}
