package flows

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// DiskParams are the parameters of the workflows about one disk of a VM.
type DiskParams struct {
	Disk id.ID `json:"disk"`
	// WasBytes is the size of a disk that grows, before it does.
	WasBytes int64 `json:"was_bytes,omitempty"`
}

// VMDiskAdd makes a further disk for a VM at rest. The disk was recorded and its
// space counted when the request was accepted. It unwinds to the VM as it was: no
// volume, no record, the space given back; what stays is an image in the node's
// cache.
func VMDiskAdd() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobDiskAdd,
		Steps: []workflow.Step[Env]{
			{Name: "fetch image", Do: onceReported("the disk is made", fetchDiskImage), Cancellable: true},
			{Name: "make disk", Do: makeDisk, Undo: dropDisk},
		},
		Finish: finishDisk(func(ctx context.Context, t *store.Tx, v vm.View, p DiskParams, out workflow.Outcome) error {
			if out.Succeeded() {
				return nil
			}
			return t.VolumeDelete(ctx, v, p.Disk)
		}),
	}
}

// VMDiskGrow makes a disk larger, of a VM at rest or of one that runs: then its
// guest sees it at once. The new size was recorded and its space counted when the
// request was accepted. Until the node is there it may be cancelled, and the size
// is as it was. There is no way back once the node was asked, since a guest may
// have begun to use what it got.
func VMDiskGrow() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobDiskGrow,
		Steps: []workflow.Step[Env]{
			{Name: "find node", Do: onceReported("the disk grows", nothing), Cancellable: true},
			{Name: "grow", Do: untilReached("the job goes on", growDisk), NoReturn: true},
		},
		Finish: finishDisk(func(ctx context.Context, t *store.Tx, v vm.View, p DiskParams, out workflow.Outcome) error {
			if out.Succeeded() {
				return nil
			}
			return t.VolumeResize(ctx, v, p.Disk, p.WasBytes)
		}),
	}
}

// VMDiskRemove removes a disk of a VM at rest with all that is on it. Until the
// node is there it may be cancelled; there is no way back once the node was asked.
func VMDiskRemove() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobDiskRemove,
		Steps: []workflow.Step[Env]{
			{Name: "find node", Do: onceReported("the disk is removed", nothing), Cancellable: true},
			{Name: "remove", Do: untilReached("the disk is removed", removeDisk), NoReturn: true},
		},
		Finish: finishDisk(func(ctx context.Context, t *store.Tx, v vm.View, p DiskParams, out workflow.Outcome) error {
			if !out.Succeeded() {
				return nil
			}
			return t.VolumeDelete(ctx, v, p.Disk)
		}),
	}
}

func nothing(context.Context, *run) (any, error) { return nil, nil }

// finishDisk ends the hold together with what the job makes of the disk's record.
// What went wrong with a disk is the job's to tell: the VM is as well as before.
func finishDisk(record func(context.Context, *store.Tx, vm.View, DiskParams, workflow.Outcome) error) func(context.Context, pgx.Tx, *run, workflow.Outcome) error {
	return func(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
		t := store.On(tx)
		var p DiskParams
		if err := r.Params(&p); err != nil {
			return err
		}
		v, err := t.VMGet(ctx, *r.Job.ProjectID, r.Job.Target.ID.String()) // locked: its node stays what it is
		if err != nil {
			return err
		}
		if err := record(ctx, t, v, p, out); err != nil {
			return err
		}
		return t.VMLetGo(ctx, v.Intent, r.Job.ID)
	}
}

// diskOf reads the VM and the disk a job is about.
func diskOf(ctx context.Context, r *run) (v vm.View, d vm.Volume, err error) {
	var p DiskParams
	if err = r.Params(&p); err != nil {
		return v, d, err
	}
	if v, err = load(ctx, r); err == nil {
		d, err = v.Disk(p.Disk.String())
	}
	return v, d, err
}

func fetchDiskImage(ctx context.Context, r *run) (any, error) {
	v, d, err := diskOf(ctx, r)
	if err != nil || d.ImageID == nil {
		return nil, err
	}
	return nil, fetch(ctx, r, v, []id.ID{*d.ImageID}, r.Step)
}

func makeDisk(ctx context.Context, r *run) (any, error) {
	v, d, err := diskOf(ctx, r)
	if err != nil {
		return nil, err
	}
	spec, err := volumeSpec(ctx, r, d)
	if err != nil {
		return nil, err
	}
	return nil, call(ctx, r, v, &nodelink.CreateVolumes{Header: head(r, v, v.Intent.Epoch, makeTime(d)), Volumes: []nodelink.VolumeSpec{spec}}, nil)
}

// growDisk asks the VM's node. Of a VM whose node was removed by force, no disk is
// left to grow, and the VM says so.
func growDisk(ctx context.Context, r *run) (any, error) {
	v, d, err := diskOf(ctx, r)
	if err != nil || v.Intent.NodeID == nil {
		return nil, err
	}
	return nil, call(ctx, r, v, &nodelink.GrowVolume{Header: head(r, v, v.Intent.Epoch, stepTimeout), Volume: d.ID, SizeBytes: d.SizeBytes}, nil)
}

// removeDisk removes the volume from the VM's node, if there still is one.
func removeDisk(ctx context.Context, r *run) (any, error) {
	v, d, err := diskOf(ctx, r)
	if err != nil || v.Intent.NodeID == nil {
		return nil, err
	}
	return nil, call(ctx, r, v, &nodelink.DeleteVolumes{Header: head(r, v, v.Intent.Epoch, stepTimeout), Volumes: []id.ID{d.ID}}, nil)
}

func dropDisk(ctx context.Context, r *run) error {
	_, err := removeDisk(ctx, r)
	return err
}
