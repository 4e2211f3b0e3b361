package vm

import "github.com/novacron/novacron/internal/vocab/errs"

// Attaches tells whether there is anything to do to have a CD in the VM's drive. A drive
// that has another one is not taken from whoever put that there: errs.InUse.
func (v View) Attaches(cd CD) (bool, error) {
	has := v.Intent.CDROM
	switch {
	case has == nil:
		return true, nil
	case has.ID == cd.ID:
		return false, nil
	default:
		return false, errs.New(errs.InUse, "the drive of VM %q has CD %q in it: eject that first", v.Intent.Name, has.Name)
	}
}

// cdSteps brings what is wanted into the drive.
func (w Want) cdSteps(v View) (steps []Step) {
	if w.CDROM == nil || v.Intent.CDROM.Is(*w.CDROM) {
		return nil
	}
	if v.Intent.CDROM != nil {
		steps = append(steps, Step{Kind: StepEjectCD, At: "/cdrom"})
	}
	if *w.CDROM != "" {
		steps = append(steps, Step{Kind: StepAttachCD, At: "/cdrom", CD: *w.CDROM})
	}
	return steps
}
