package vm

import "github.com/novacron/novacron/internal/vocab/errs"

// Attaches tells whether there is anything to do to have a CD in the VM's drive. A drive
// that has another one is not taken from whoever put that there, unless it is to be
// replaced: errs.InUse.
func (v View) Attaches(cd CD, replace bool) (bool, error) {
	has := v.Intent.CDROM
	switch {
	case has != nil && has.ID == cd.ID:
		return false, nil
	case has == nil || replace:
		return true, nil
	default:
		return false, errs.New(errs.InUse, "the drive of VM %q has CD %q in it: eject that first, or have it replaced ('novacron vm cdrom attach --replace')", v.Intent.Name, has.Name)
	}
}

// cdSteps brings what is wanted into the drive, in place of what is there.
func (w Want) cdSteps(v View) []Step {
	if w.CDROM == nil || v.Intent.CDROM.Is(*w.CDROM) {
		return nil
	}
	if *w.CDROM == "" {
		return []Step{{Kind: StepEjectCD, At: "/cdrom"}}
	}
	return []Step{{Kind: StepAttachCD, At: "/cdrom", CD: *w.CDROM}}
}
