package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// The VM's row must be locked (VMGet) by who changes its disks: what they take is
// counted on the node the VM is on at that moment.

// VolumeAdd records a disk of a VM and counts it on the VM's node. errs.NoNodeFits
// when that has no room.
func (t *Tx) VolumeAdd(ctx context.Context, v vm.View, d vm.Volume) error {
	if err := t.volumeInsert(ctx, v.Intent, d); err != nil {
		return err
	}
	return t.takeDisk(ctx, v, d.PoolID, d.SizeBytes)
}

func (t *Tx) volumeInsert(ctx context.Context, in vm.Intent, d vm.Volume) error {
	l := d.Limits
	return noRoom(t.q.VolumeInsert(ctx, query.VolumeInsertParams{
		ID: d.ID, ProjectID: in.ProjectID, VmID: in.ID, Slot: int32(d.Slot), SizeBytes: d.SizeBytes, ImageID: d.ImageID, PoolID: d.PoolID,
		Iops: l.IOPS, ReadIops: l.ReadIOPS, WriteIops: l.WriteIOPS, BytesS: l.BytesPerSecond, ReadBytesS: l.ReadBytesPerSecond, WriteBytesS: l.WriteBytesPerSecond,
	}), in.Name)
}

// noRoom words that a storage pool has no room for a disk.
func noRoom(err error, vm string) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "storage_pools_room" {
		return errs.New(errs.NoSpace, "the storage pool has no room left for a disk of VM %q ('novacron pool list')", vm)
	}
	return pgtx.Map(err)
}

// VolumeLimit records a disk's limits.
func (t *Tx) VolumeLimit(ctx context.Context, in vm.Intent, disk id.ID, l vm.DiskLimits) error {
	n, err := t.q.VolumeLimit(ctx, query.VolumeLimitParams{
		ID: disk, VmID: in.ID,
		Iops: l.IOPS, ReadIops: l.ReadIOPS, WriteIops: l.WriteIOPS, BytesS: l.BytesPerSecond, ReadBytesS: l.ReadBytesPerSecond, WriteBytesS: l.WriteBytesPerSecond,
	})
	if err == nil && n == 0 {
		err = NotFound("disk", disk.String())
	}
	return pgtx.Map(err)
}

// VMLimit records what a VM may take of its node's processors.
func (t *Tx) VMLimit(ctx context.Context, v id.ID, l vm.Limits) error {
	return pgtx.Map(t.q.VMLimit(ctx, query.VMLimitParams{ID: v, CpuWeight: int32(l.Normal().CPUWeight), CpuCapPercent: int32(l.CPUCapPercent)}))
}

// VolumeResize records a disk's size and counts the difference on the VM's node.
// errs.NoNodeFits when that has no room.
func (t *Tx) VolumeResize(ctx context.Context, v vm.View, disk id.ID, sizeBytes int64) error {
	was, err := t.q.VolumeResize(ctx, query.VolumeResizeParams{ID: disk, VmID: v.Intent.ID, SizeBytes: sizeBytes})
	if errors.Is(err, pgx.ErrNoRows) {
		return one(err, "disk", disk.String())
	}
	if err != nil {
		return noRoom(err, v.Intent.Name)
	}
	return t.takeDisk(ctx, v, was.PoolID, sizeBytes-was.SizeBytes)
}

// VolumeDelete forgets a disk and gives back what it took. Twice is no error.
func (t *Tx) VolumeDelete(ctx context.Context, v vm.View, disk id.ID) error {
	was, err := t.q.VolumeDelete(ctx, query.VolumeDeleteParams{ID: disk, VmID: v.Intent.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return pgtx.Map(err)
	}
	return t.takeDisk(ctx, v, was.PoolID, -was.SizeBytes)
}

// takeDisk counts more or less disk space on the VM's node. What is in a storage pool is
// counted there, with its row.
func (t *Tx) takeDisk(ctx context.Context, v vm.View, pool *id.ID, bytes int64) error {
	if v.Intent.NodeID == nil || pool != nil {
		return nil
	}
	if bytes <= 0 {
		return pgtx.Map(t.q.NodeRelease(ctx, query.NodeReleaseParams{ID: *v.Intent.NodeID, DiskBytes: -bytes}))
	}
	fits, err := t.q.NodeReserve(ctx, query.NodeReserveParams{ID: *v.Intent.NodeID, DiskBytes: bytes})
	if err == nil && fits == 0 {
		err = errs.New(errs.NoNodeFits, "the node that has the disks of VM %q has no disk space left for that", v.Intent.Name)
	}
	return pgtx.Map(err)
}

// VMLetGo ends a job's hold on a VM and leaves all else as it is, a failure of
// before included.
func (t *Tx) VMLetGo(ctx context.Context, in vm.Intent, job id.ID) error {
	if err := t.q.VMLetGo(ctx, query.VMLetGoParams{ID: in.ID, JobID: &job}); err != nil {
		return pgtx.Map(err)
	}
	return t.vmEvent(ctx, in.ID, "vm.updated", in, &job)
}
