package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// vmApplier applies a VM's document.
type vmApplier struct {
	s *Service
	d Document
}

func (a *vmApplier) apply(ctx context.Context, tx *store.Tx, c Caller, o ApplyOptions) (Applied, error) {
	v, err := tx.VMGet(ctx, a.s.cfg.Project, a.d.Name)
	if errs.Is(err, errs.NotFound) {
		return a.create(ctx, tx, c)
	}
	if err == nil {
		err = c.may(auth.Need{Resource: auth.VM, Action: auth.Update})
	}
	if err == nil {
		err = a.d.is(v.Intent.ID, int64(v.Intent.Revision))
	}
	if err != nil {
		return Applied{}, err
	}
	a.s.judge(&v)
	want, err := a.s.sameImages(ctx, tx, *a.d.VM, v)
	if err == nil {
		want.SeedImage, err = a.s.sameCD(ctx, tx, v.Intent.SeedImage, want.SeedImage)
	}
	if err == nil {
		want.CDROM, err = a.s.sameCD(ctx, tx, v.Intent.CDROM, want.CDROM)
	}
	if err != nil {
		return Applied{}, within(err, "")
	}
	steps, err := want.Steps(v, o.Prune)
	if err != nil {
		return Applied{}, within(err, "")
	}
	return a.s.walk(ctx, tx, c, v, steps, o.DryRun)
}

func (a *vmApplier) create(ctx context.Context, tx *store.Tx, c Caller) (Applied, error) {
	if err := c.may(auth.Need{Resource: auth.VM, Action: auth.Create}); err != nil {
		return Applied{}, err
	}
	if err := a.d.gone(); err != nil {
		return Applied{}, err
	}
	w := a.d.VM
	spec, err := w.New(a.d.Name)
	n := NewVM{Spec: spec, Start: w.PowerOn != nil && *w.PowerOn}
	if w.Image != nil {
		n.Image = *w.Image
	}
	if err == nil {
		err = a.s.mayCreate(ctx, &n)
	}
	if err != nil {
		return Applied{}, within(err, "")
	}
	made, v, err := a.s.createVM(ctx, tx, c, n)
	v.Intent.PowerOn = n.Start
	return Applied{Action: ActionCreate, After: v, Object: &v.Intent.ID, Job: made.Job}, within(err, "")
}

// walk makes the first step, or in a dry run judges all of them.
func (s *Service) walk(ctx context.Context, tx *store.Tx, c Caller, v vm.View, steps []vm.Step, dry bool) (Applied, error) {
	out := Applied{Action: ActionNone, Before: v, Object: &v.Intent.ID, More: len(steps) > 1 && !dry}
	after := v
	for i, step := range steps {
		out.Action = ActionChange
		need := auth.Need{Resource: auth.VM, Action: auth.Update}
		if step.Executes() {
			need.Action = auth.Execute
		}
		err := c.may(need)
		switch {
		case err != nil:
		case dry:
			err = s.mayStep(ctx, tx, after, step)
		case i == 0:
			out.Job, err = s.step(ctx, tx, c, v, step)
		}
		if err != nil {
			return out, within(err, step.At)
		}
		after = after.After(step)
	}
	out.After = after
	return out, nil
}

// step makes one change.
func (s *Service) step(ctx context.Context, tx *store.Tx, c Caller, v vm.View, step vm.Step) (*id.ID, error) {
	var a Accepted
	var err error
	switch step.Kind {
	case vm.StepStop:
		a, err = s.ask(ctx, tx, c, v, vm.Stop, Stop{DefaultGrace})
	case vm.StepChange:
		if err = step.Change.Validate(); err == nil {
			a.Job, err = s.update(ctx, tx, c, v, step.Change)
		}
	case vm.StepGrowDisk:
		if err = (vm.DiskSpec{SizeBytes: step.SizeBytes}).Validate(); err == nil {
			a, err = s.growDisk(ctx, tx, c, v, step.Disk, step.SizeBytes)
		}
	case vm.StepLimitDisk:
		a, err = s.limitDisk(ctx, tx, c, v, step.Disk, step.Limits)
	case vm.StepEjectCD:
		a, err = s.ejectCD(ctx, tx, c, v, false)
	case vm.StepAttachCD:
		a, err = s.attachCD(ctx, tx, c, v, AttachCD{Image: step.CD, Replace: true})
	case vm.StepAddDisk:
		if err = step.Add.Validate(); err == nil {
			a, err = s.addDisk(ctx, tx, c, v, step.Add)
		}
	case vm.StepRemoveDisk:
		a, err = s.removeDisk(ctx, tx, c, v, step.Disk)
	case vm.StepStart:
		a, err = s.ask(ctx, tx, c, v, vm.Start, Stop{})
	}
	return a.Job, err
}

// mayStep judges one change, by the rules that step goes by.
func (s *Service) mayStep(ctx context.Context, tx *store.Tx, v vm.View, step vm.Step) error {
	var err error
	switch step.Kind {
	case vm.StepStop:
		_, err = vm.Decide(v, vm.Stop)
	case vm.StepChange:
		if err = step.Change.Validate(); err == nil {
			err = s.mayChange(ctx, tx, v, step.Change)
		}
	case vm.StepGrowDisk:
		if err = (vm.DiskSpec{SizeBytes: step.SizeBytes}).Validate(); err == nil {
			_, err = mayGrowDisk(ctx, tx, v, step.Disk, step.SizeBytes)
		}
	case vm.StepLimitDisk:
		err = s.mayLimitDisk(ctx, tx, v, step.Disk, step.Limits)
	case vm.StepEjectCD:
		_, err = vm.Decide(v, vm.ChangeCD)
	case vm.StepAttachCD:
		_, _, err = s.mayAttachCD(ctx, tx, v, AttachCD{Image: step.CD, Replace: true})
	case vm.StepAddDisk:
		if err = step.Add.Validate(); err == nil {
			_, err = s.mayAddDisk(ctx, tx, v, step.Add)
		}
	case vm.StepRemoveDisk:
		err = mayRemoveDisk(v, step.Disk)
	case vm.StepStart:
		_, err = vm.Decide(v, vm.Start)
	}
	return err
}

// sameImages writes the images a document names as the VM knows them, where they
// are the same ones by another name.
func (s *Service) sameImages(ctx context.Context, tx *store.Tx, w vm.Want, v vm.View) (vm.Want, error) {
	known := map[id.ID]string{}
	if v.Intent.ImageID != nil {
		known[*v.Intent.ImageID] = v.Intent.ImageName
	}
	for _, d := range v.Volumes {
		if d.ImageID != nil {
			known[*d.ImageID] = d.ImageName
		}
	}
	same := func(ref string) (string, error) {
		if ref == "" {
			return ref, nil
		}
		for u, name := range known {
			if ref == name || ref == u.String() {
				return ref, nil
			}
		}
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return ref, err
		}
		if name, ok := known[i.ID]; ok {
			return name, nil
		}
		return ref, nil
	}
	if w.Image != nil {
		name, err := same(*w.Image)
		if err != nil {
			return w, err
		}
		w.Image = &name
	}
	if w.Disks == nil {
		return w, nil
	}
	disks := make([]vm.WantDisk, len(*w.Disks))
	for i, d := range *w.Disks {
		var err error
		if d.Image, err = same(d.Image); err != nil {
			return w, err
		}
		disks[i] = d
	}
	w.Disks = &disks
	return w, nil
}
