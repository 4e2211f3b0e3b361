package vm

import "github.com/novacron/novacron/internal/vocab/errs"

// Moves tells why a VM that Decide lets migrate cannot be copied as it is: what executes,
// or may be started by its node meanwhile, is not.
func Moves(v View) error {
	if v.Observed != nil && v.Observed.Epoch >= v.Intent.Epoch && v.Observed.Phase.OnNode() {
		return errs.New(errs.InvalidState, "cannot migrate %q: it is %s, and moves while it is stopped or suspended; suspend it first, and resume it afterwards to go on where it was",
			v.Intent.Name, observed(*v.Observed, v.Intent).State)
	}
	if unsettled(v.Intent) {
		_, err := endedByItself(v, Migrate)
		return err
	}
	return nil
}
