package control

import (
	"context"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// AttachCD says which CD comes into a drive, and how.
type AttachCD struct {
	// Image is the CD's name or id.
	Image string
	// Replace takes out what is in the drive; without, a drive with something in it is
	// refused.
	Replace bool
	// Force takes a CD that the guest has in use.
	Force bool
}

// AttachCD puts a CD into the drive of a VM: a guest that is there has it at once, by a
// job. Without a job it is recorded, and the next start brings it.
func (s *Service) AttachCD(ctx context.Context, c Caller, ref string, a AttachCD) (Accepted, error) {
	if a.Image == "" {
		return Accepted{}, errs.New(errs.InvalidField, "name the CD to attach, an image of type iso").
			At(errs.Field{Pointer: "/image", Message: "is missing"})
	}
	return s.onCD(ctx, c, ref, func(tx *store.Tx, v vm.View) (Accepted, error) { return s.attachCD(ctx, tx, c, v, a) })
}

// EjectCD empties the drive of a VM. With force it takes a CD that the guest has in use.
func (s *Service) EjectCD(ctx context.Context, c Caller, ref string, force bool) (Accepted, error) {
	return s.onCD(ctx, c, ref, func(tx *store.Tx, v vm.View) (Accepted, error) { return s.ejectCD(ctx, tx, c, v, force) })
}

func (s *Service) onCD(ctx context.Context, c Caller, ref string, change func(*store.Tx, vm.View) (Accepted, error)) (out Accepted, err error) {
	err = s.change(ctx, func(tx *store.Tx) error {
		v, err := s.decided(ctx, tx, c, ref, vm.ChangeCD)
		if err == nil {
			out, err = change(tx, v)
		}
		return err
	})
	return out, err
}

func (s *Service) attachCD(ctx context.Context, tx *store.Tx, c Caller, v vm.View, a AttachCD) (Accepted, error) {
	cd, attaches, err := s.mayAttachCD(ctx, tx, v, a)
	if err != nil || !attaches {
		return Accepted{Object: v.Intent.ID}, err
	}
	p := flows.CDROMParams{Image: cd.ID, Force: a.Force}
	detail := map[string]any{"attached": cd.Name, "image": cd.ID}
	if out := v.Intent.CDROM; out != nil {
		p.Replaces = out.ID
		detail["replaced"], detail["force"] = out.Name, a.Force
	}
	if err := tx.VMCDROM(ctx, v.Intent, cd); err != nil {
		return Accepted{}, err
	}
	return s.cdJob(ctx, tx, c, v, p, detail)
}

// mayAttachCD finds the CD, and tells whether there is anything to do.
func (s *Service) mayAttachCD(ctx context.Context, tx *store.Tx, v vm.View, a AttachCD) (*vm.CD, bool, error) {
	if _, err := vm.Decide(v, vm.ChangeCD); err != nil {
		return nil, false, err
	}
	cd, err := s.cd(ctx, tx, a.Image, "/image")
	if err != nil {
		return nil, false, err
	}
	attaches, err := v.Attaches(*cd, a.Replace)
	return cd, attaches, err
}

func (s *Service) ejectCD(ctx context.Context, tx *store.Tx, c Caller, v vm.View, force bool) (Accepted, error) {
	cd := v.Intent.CDROM
	if cd == nil {
		return Accepted{Object: v.Intent.ID}, nil
	}
	if !v.HasGuest() {
		if err := tx.VMCDROM(ctx, v.Intent, nil); err != nil {
			return Accepted{}, err
		}
	}
	return s.cdJob(ctx, tx, c, v, flows.CDROMParams{Image: cd.ID, Eject: true, Force: force}, map[string]any{"ejected": cd.Name, "image": cd.ID, "force": force})
}

// cdJob takes the VM for the job that brings a change of its drive to its guest, if there
// is one.
func (s *Service) cdJob(ctx context.Context, tx *store.Tx, c Caller, v vm.View, p flows.CDROMParams, detail map[string]any) (Accepted, error) {
	out := Accepted{Object: v.Intent.ID}
	if !v.HasGuest() {
		r := c.record(vm.JobCDROM, "vm", v.Intent.ID, v.Intent.Name)
		r.ProjectID, r.Detail = &s.cfg.Project, detail
		return out, tx.AuditInsert(ctx, r)
	}
	j := workflow.NewJob{ID: id.New(), Kind: vm.JobCDROM, Params: p, Cancellable: true}
	var err error
	if j.OpSeq, err = tx.VMHold(ctx, v.Intent, j.ID); err != nil {
		return Accepted{}, err
	}
	out.Job = &j.ID
	_, err = s.beginWith(ctx, tx, c, v, j, detail)
	return out, err
}
