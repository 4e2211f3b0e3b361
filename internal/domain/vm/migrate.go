package vm

import "github.com/novacron/novacron/internal/vocab/errs"

// Executes tells whether its node has seen it with a guest that executes, or is halted with
// its memory kept.
func (v View) Executes() bool {
	return v.has() && (v.Observed.Phase == PhaseRunning || v.Observed.Phase == PhasePaused)
}

// has tells whether its node has seen a process of its newest incarnation.
func (v View) has() bool { return current(v) && v.Observed.Phase.OnNode() }

// Moves tells why a VM that Decide lets migrate does not move as it is: one between two
// states, one whose guest's file systems are halted, one that its node may start meanwhile.
func Moves(v View) error {
	switch {
	case v.Executes() && v.Observed.Frozen != nil:
		return errs.New(errs.InvalidState, "cannot migrate %q: the file systems of its guest are frozen; thaw them first", v.Intent.Name)
	case v.Executes() && v.Intent.Hardware.Type == MachineMicro:
		return errs.New(errs.InvalidState, "cannot migrate %q while it runs: it is a microvm, whose board has no versions; stop it first, and start it afterwards", v.Intent.Name)
	case v.Executes():
		return nil
	case v.has():
		return errs.New(errs.InvalidState, "cannot migrate %q: it is %s; wait until it runs, or has stopped", v.Intent.Name, observed(*v.Observed, v.Intent).State)
	case unsettled(v.Intent):
		_, err := endedByItself(v, Migrate)
		return err
	}
	return nil
}
