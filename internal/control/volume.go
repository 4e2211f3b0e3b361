package control

import (
	"context"
	"fmt"
	"strings"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// inPool notes the storage pool that a disk is to be in; that is kept from being deleted
// until the transaction ends.
func inPool(ctx context.Context, tx *store.Tx, v *vm.Volume, d vm.DiskSpec, at string) error {
	if d.Pool == "" {
		return nil
	}
	p, err := tx.PoolUse(ctx, d.Pool)
	if errs.Is(err, errs.NotFound) {
		return errs.New(errs.InvalidField, "there is no storage pool %q: 'novacron pool list' shows those that nodes have", errs.Clip(d.Pool)).
			At(errs.Field{Pointer: at + "/pool", Message: "is no storage pool", Got: d.Pool})
	}
	v.PoolID, v.PoolName = &p.ID, p.Name
	return err
}

// volumeMaker makes a disk of what is wanted; at is where that stands in the request.
type volumeMaker func(ctx context.Context, tx *store.Tx, d vm.DiskSpec, at string) (vm.Volume, error)

// pooled has what is made in the pool that is wanted for it.
func pooled(made volumeMaker) volumeMaker {
	return func(ctx context.Context, tx *store.Tx, d vm.DiskSpec, at string) (vm.Volume, error) {
		vol, err := made(ctx, tx, d, at)
		if err == nil {
			err = inPool(ctx, tx, &vol, d, at)
		}
		return vol, err
	}
}

// newVolume makes a disk with an id of its own, from an image if it names one;
// the image is kept from being deleted until the transaction ends.
func (s *Service) newVolume(ctx context.Context, tx *store.Tx, d vm.DiskSpec, at string) (vm.Volume, error) {
	if d.Image == "" && d.SizeBytes == 0 {
		return vm.Volume{}, errs.New(errs.InvalidSize, "a disk that is made from no image needs a size").
			At(errs.Field{Pointer: at + "/size_bytes", Message: "is required"})
	}
	if d.Image == "" {
		return vm.Volume{ID: id.New(), SizeBytes: d.SizeBytes}, nil
	}
	img, err := tx.ImageUse(ctx, s.cfg.Project, d.Image)
	if err != nil {
		return vm.Volume{}, err
	}
	return volumeFrom(img, d.SizeBytes, at)
}

// volumeFrom makes a disk from an image; without a size it has the image's.
func volumeFrom(img image.Image, size int64, at string) (vm.Volume, error) {
	base, ok := img.File(image.RoleDisk)
	if !ok {
		return vm.Volume{}, errs.New(errs.InvalidField, "image %q is a %s: only disk images make disks", img.Name, img.Kind).
			At(errs.Field{Pointer: at + "/image", Message: "is no disk image", Got: img.Name})
	}
	if size == 0 {
		size = base.VirtualBytes
	}
	if size < base.VirtualBytes {
		limit := "at least " + unit.FormatBytes(base.VirtualBytes)
		return vm.Volume{}, errs.New(errs.InvalidSize, "a disk that is made from image %q must be %s", img.Name, limit).
			At(errs.Field{Pointer: at + "/size_bytes", Message: "is smaller than the image", Limit: limit, Got: fmt.Sprint(size)})
	}
	return vm.Volume{ID: id.New(), SizeBytes: size, ImageID: &img.ID, ImageName: img.Name}, nil
}

// bootVolume makes the first disk of a VM that is made from a disk image.
func bootVolume(img image.Image) func(context.Context, *store.Tx, vm.DiskSpec, string) (vm.Volume, error) {
	return func(_ context.Context, _ *store.Tx, d vm.DiskSpec, at string) (vm.Volume, error) {
		if d.Image != "" {
			return vm.Volume{}, errs.New(errs.InvalidField, "the first disk is made from the VM's own image %q", img.Name).
				At(errs.Field{Pointer: at + "/image", Message: "is the VM's own image already", Got: d.Image})
		}
		return volumeFrom(img, d.SizeBytes, at)
	}
}

// AddDisk gives a VM at rest a further disk.
func (s *Service) AddDisk(ctx context.Context, c Caller, ref string, d vm.DiskSpec) (Accepted, error) {
	if err := d.Validate(); err != nil {
		return Accepted{}, err
	}
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		v, err := s.decided(ctx, tx, c, ref, vm.AddDisk)
		if err != nil {
			return Accepted{}, err
		}
		return s.addDisk(ctx, tx, c, v, d)
	})
}

func (s *Service) addDisk(ctx context.Context, tx *store.Tx, c Caller, v vm.View, d vm.DiskSpec) (Accepted, error) {
	vol, err := s.mayAddDisk(ctx, tx, v, d)
	if err == nil {
		err = tx.VolumeAdd(ctx, v, vol)
	}
	if err != nil {
		return Accepted{}, err
	}
	return s.diskJob(ctx, tx, c, v, vm.JobDiskAdd, flows.DiskParams{Disk: vol.ID}, map[string]any{"disk": vol.ID, "size_bytes": vol.SizeBytes})
}

// mayAddDisk gives the disk as it would be added.
func (s *Service) mayAddDisk(ctx context.Context, tx *store.Tx, v vm.View, d vm.DiskSpec) (vm.Volume, error) {
	if _, err := vm.Decide(v, vm.AddDisk); err != nil {
		return vm.Volume{}, err
	}
	vol, err := pooled(s.newVolume)(ctx, tx, d, "")
	if err == nil {
		vol.Limits = d.Limits
		vol.Slot, err = v.FreeSlot()
	}
	if err == nil {
		err = roomForDisk(ctx, tx, v, vol, vol.SizeBytes)
	}
	if err == nil && d.Limits != (vm.DiskLimits{}) {
		err = mayLimit(ctx, tx, v, v.After(vm.Step{Kind: vm.StepAddDisk, Add: d}))
	}
	return vol, err
}

// GrowDisk makes a disk larger, while its guest runs too. Without a job it has
// that size already.
func (s *Service) GrowDisk(ctx context.Context, c Caller, ref, disk string, sizeBytes int64) (Accepted, error) {
	var out Accepted
	if err := (vm.DiskSpec{SizeBytes: sizeBytes}).Validate(); err != nil {
		return out, err
	}
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := s.decided(ctx, tx, c, ref, vm.GrowDisk)
		if err != nil {
			return err
		}
		d, err := v.Disk(disk)
		if err != nil {
			return err
		}
		out, err = s.growDisk(ctx, tx, c, v, d, sizeBytes)
		return err
	})
	return out, err
}

func (s *Service) growDisk(ctx context.Context, tx *store.Tx, c Caller, v vm.View, d vm.Volume, sizeBytes int64) (Accepted, error) {
	out := Accepted{Object: d.ID}
	if grows, err := mayGrowDisk(ctx, tx, v, d, sizeBytes); err != nil || !grows {
		return out, err
	}
	if err := tx.VolumeResize(ctx, v, d.ID, sizeBytes); err != nil {
		return out, err
	}
	return s.diskJob(ctx, tx, c, v, vm.JobDiskGrow, flows.DiskParams{Disk: d.ID, WasBytes: d.SizeBytes},
		map[string]any{"disk": d.ID, "size_bytes": map[string]any{"from": d.SizeBytes, "to": sizeBytes}})
}

// mayGrowDisk tells whether there is anything to grow, and refuses what cannot.
func mayGrowDisk(ctx context.Context, tx *store.Tx, v vm.View, d vm.Volume, sizeBytes int64) (bool, error) {
	if _, err := vm.Decide(v, vm.GrowDisk); err != nil {
		return false, err
	}
	grows, err := v.Grows(d, sizeBytes)
	if err == nil && grows {
		err = roomForDisk(ctx, tx, v, d, sizeBytes-d.SizeBytes)
	}
	return grows, err
}

// RemoveDisk removes a disk of a VM at rest, with all that is on it.
func (s *Service) RemoveDisk(ctx context.Context, c Caller, ref, disk string) (Accepted, error) {
	var out Accepted
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := s.decided(ctx, tx, c, ref, vm.RemoveDisk)
		if err != nil {
			return err
		}
		d, err := v.Disk(disk)
		if err != nil {
			return err
		}
		out, err = s.removeDisk(ctx, tx, c, v, d)
		return err
	})
	return out, err
}

func (s *Service) removeDisk(ctx context.Context, tx *store.Tx, c Caller, v vm.View, d vm.Volume) (Accepted, error) {
	if err := mayRemoveDisk(v, d); err != nil {
		return Accepted{}, err
	}
	return s.diskJob(ctx, tx, c, v, vm.JobDiskRemove, flows.DiskParams{Disk: d.ID}, map[string]any{"disk": d.ID, "size_bytes": d.SizeBytes})
}

func mayRemoveDisk(v vm.View, d vm.Volume) error {
	if _, err := vm.Decide(v, vm.RemoveDisk); err != nil {
		return err
	}
	if v.Boots(d) {
		return errs.New(errs.InvalidState, "disk %d of VM %q is what the VM was made from and starts from: delete the VM instead", d.Slot, v.Intent.Name)
	}
	return nil
}

// decided reads and locks a VM that a request may be carried out on.
func (s *Service) decided(ctx context.Context, tx *store.Tx, c Caller, ref string, r vm.Request) (vm.View, error) {
	v, err := tx.VMGet(ctx, s.cfg.Project, ref)
	if err != nil {
		return v, err
	}
	if err := c.believes(v); err != nil {
		return v, err
	}
	s.judge(&v)
	if err := s.holds.On(v.Intent.NodeID); err != nil {
		return v, err
	}
	_, err = vm.Decide(v, r)
	return v, err
}

// diskJob takes the VM for a job about one of its disks.
func (s *Service) diskJob(ctx context.Context, tx *store.Tx, c Caller, v vm.View, kind string, p flows.DiskParams, detail map[string]any) (Accepted, error) {
	j := workflow.NewJob{ID: id.New(), Kind: kind, Params: p, Cancellable: true}
	var err error
	if j.OpSeq, err = tx.VMHold(ctx, v.Intent, j.ID); err != nil {
		return Accepted{}, err
	}
	_, err = s.beginWith(ctx, tx, c, v, j, detail)
	return Accepted{Job: &j.ID, Object: p.Disk}, err
}

// roomForDisk refuses, with the numbers, what the VM's node has no space for, and a storage
// pool that it cannot use. It locks the node, so that the answer holds for the rest of the
// transaction.
func roomForDisk(ctx context.Context, tx *store.Tx, v vm.View, d vm.Volume, bytes int64) error {
	if v.Intent.NodeID == nil {
		return errs.New(errs.InvalidState, "VM %q is on no node yet", v.Intent.Name)
	}
	n, err := tx.NodeGet(ctx, v.Intent.NodeID.String())
	if err != nil {
		return err
	}
	need := scheduler.Request{DiskBytes: bytes}
	if d.PoolID != nil {
		need = scheduler.Request{Pools: map[string]id.ID{d.PoolName: *d.PoolID}}
	}
	if why := scheduler.Room(n, need); len(why) > 0 {
		return errs.New(errs.NoNodeFits, "node %s, which has the disks of VM %q, %s", n.Name, v.Intent.Name, strings.Join(why, " and "))
	}
	return nil
}
