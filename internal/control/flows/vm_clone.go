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

// CloneParams are the parameters of vm.clone.
type CloneParams struct {
	// Source is the VM the clone is made from.
	Source id.ID `json:"source"`
	// Volumes are the clone's disks, by the disk each is a copy of.
	Volumes map[id.ID]id.ID `json:"volumes"`
}

// VMClone makes a VM from another one that rests. The clone was recorded on the
// other's node, its space counted, and both were taken for this job when the
// request was accepted: nobody starts or changes the original meanwhile.
//
// It unwinds to nothing: the copies, the space and the clone's row are gone, and
// the original is as it was, which it is after success too.
func VMClone() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobClone,
		Steps: []workflow.Step[Env]{
			{Name: "find node", Do: onceReported("the disks are copied", nothing), Cancellable: true},
			// its undo removes all the node holds of the clone, the record included
			{Name: "copy disks", Do: copyDisks, Undo: erase, Cancellable: true},
		},
		Finish: finishClone,
	}
}

func copyDisks(ctx context.Context, r *run) (any, error) {
	var p CloneParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	// without disks, too: what its firmware knows is copied with them
	cmd := &nodelink.CopyVolumes{Header: head(r, v, v.Intent.Epoch, fetchTimeout), Source: p.Source}
	for _, d := range v.Volumes {
		cmd.Volumes = append(cmd.Volumes, nodelink.VolumeCopy{ID: d.ID, From: p.Volumes[d.ID]})
	}
	if err := call(ctx, r, v, cmd, nil); err != nil {
		return nil, err
	}
	return nil, writeSeed(ctx, r, v)
}

func finishClone(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	t := store.On(tx)
	var p CloneParams
	if err := r.Params(&p); err != nil {
		return err
	}
	source, err := t.VMByID(ctx, p.Source)
	if err != nil {
		return err
	}
	if err := t.VMLetGo(ctx, source.Intent, r.Job.ID); err != nil {
		return err
	}
	v, err := t.VMByID(ctx, r.Job.Target.ID)
	switch {
	case err != nil:
		return err
	case out.Succeeded():
		return t.VMFree(ctx, v.Intent.ID, r.Job.ID, nil)
	default:
		return t.VMDelete(ctx, v, &r.Job.ID)
	}
}
