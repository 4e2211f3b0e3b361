package control

import (
	"context"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// CaptureDisk makes an image's disk of one of a VM that rests, by its slot or id.
// That somebody reads what is on a disk is on record with the VM.
func (s *Service) CaptureDisk(ctx context.Context, c Caller, ref, of, which string) (Accepted, error) {
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return Accepted{}, err
		}
		if err := i.Awaits(image.RoleDisk); err != nil {
			return Accepted{}, err
		}
		v, err := s.decided(ctx, tx, c, of, vm.Capture)
		if err != nil {
			return Accepted{}, err
		}
		d, err := v.Disk(which)
		if err != nil {
			return Accepted{}, err
		}
		if v.Intent.NodeID == nil {
			return Accepted{}, errs.New(errs.InvalidState, "VM %q is on no node yet", v.Intent.Name)
		}
		j := workflow.NewJob{ID: id.New(), Kind: vm.JobCapture, Params: flows.CaptureParams{Disk: d.ID, Image: i.ID}, Cancellable: true}
		if j.OpSeq, err = tx.VMHold(ctx, v.Intent, j.ID); err != nil {
			return Accepted{}, err
		}
		if _, err = s.beginWith(ctx, tx, c, v, j, map[string]any{"disk": d.ID, "image": i.ID, "image_name": i.Name}); err != nil {
			return Accepted{}, err
		}
		return Accepted{Job: &j.ID, Object: i.ID}, tx.ImageSetState(ctx, i, image.Uploading, &j.ID)
	})
}
