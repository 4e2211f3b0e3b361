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

// CDROMParams are the parameters of vm.cdrom.
type CDROMParams struct {
	// Image comes into the drive, or with Eject goes out of it.
	Image id.ID `json:"image"`
	Eject bool  `json:"eject,omitempty"`
	// Replaces is what was in the drive that Image comes into. Its image is not deleted
	// while the job goes on, which may put it back.
	Replaces id.ID `json:"replaces,omitzero"`
	// Force takes a CD that the guest has in use.
	Force bool `json:"force,omitempty"`
}

// before is what was in the drive, and after what is in it when all went well; nil for
// nothing.
func (p CDROMParams) before() *vm.CD {
	switch {
	case p.Eject:
		return &vm.CD{ID: p.Image}
	case p.Replaces != id.Nil:
		return &vm.CD{ID: p.Replaces}
	default:
		return nil
	}
}

func (p CDROMParams) after() *vm.CD {
	if p.Eject {
		return nil
	}
	return &vm.CD{ID: p.Image}
}

// VMCDROM puts a CD into the drive of a VM that has a guest, in place of one that is
// there, or takes that out. While something of a CD may be in a drive, the VM's record or
// this job names it, and its image is not deleted: one that comes in was recorded when
// the request was accepted, one that goes out alone is struck off at the end. It unwinds
// to what was in the drive before.
func VMCDROM() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobCDROM,
		Steps: []workflow.Step[Env]{
			{Name: "find node", Do: onceReported("the CD is changed", nothing), Cancellable: true},
			// the cache is the node's own to empty: no undo
			{Name: "fetch image", Do: fetchCD, Cancellable: true},
			{Name: "change", Do: changeCD, Undo: unchangeCD},
		},
		Finish: finishCDROM,
	}
}

func fetchCD(ctx context.Context, r *run) (any, error) {
	var p CDROMParams
	if err := r.Params(&p); err != nil || p.Eject {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, fetch(ctx, r, v, []id.ID{p.Image}, r.Step)
}

func changeCD(ctx context.Context, r *run) (any, error) {
	var p CDROMParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, setMedium(ctx, r, v, p.after(), p.Force)
}

// unchangeCD makes the drive what it was, by force: nothing that a guest does keeps the
// drive half changed. A node that was removed by force has none.
func unchangeCD(ctx context.Context, r *run) error {
	var p CDROMParams
	if err := r.Params(&p); err != nil {
		return err
	}
	v, err := load(ctx, r)
	if err != nil || v.Intent.NodeID == nil {
		return err
	}
	was := p.before()
	if was != nil { // the node may have emptied its cache since
		if err := fetch(ctx, r, v, []id.ID{was.ID}, r.Step+": fetch image"); err != nil {
			return err
		}
	}
	return setMedium(ctx, r, v, was, true)
}

// setMedium has the node put a CD into the drive, or empty it.
func setMedium(ctx context.Context, r *run, v vm.View, cd *vm.CD, force bool) error {
	cmd := &nodelink.SetMedium{Header: head(r, v, v.Intent.Epoch, stepTimeout), Force: force}
	var err error
	if cmd.Medium, err = cdFile(ctx, r, cd); err != nil {
		return err
	}
	return call(ctx, r, v, cmd, nil)
}

// finishCDROM ends the hold, and records what is in the drive where that is not on record
// yet.
func finishCDROM(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	t := store.On(tx)
	var p CDROMParams
	if err := r.Params(&p); err != nil {
		return err
	}
	v, err := t.VMGet(ctx, *r.Job.ProjectID, r.Job.Target.ID.String())
	if err != nil {
		return err
	}
	if p.Eject == out.Succeeded() {
		is := p.before()
		if out.Succeeded() {
			is = p.after()
		}
		if err := t.VMCDROM(ctx, v.Intent, is); err != nil {
			return err
		}
	}
	return t.VMLetGo(ctx, v.Intent, r.Job.ID)
}
