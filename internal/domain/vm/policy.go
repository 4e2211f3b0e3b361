package vm

import "github.com/novacron/novacron/internal/vocab/errs"

// Policy is what is decided of a VM's life, beside what it is made of. It may be
// changed at any time.
type Policy struct {
	// Protected: is its deletion, and that of its disks, refused?
	Protected bool
	// Restart is never when empty.
	Restart RestartPolicy
}

// PolicyChange is what is to be different of a Policy. Nil fields stay.
type PolicyChange struct {
	Protected *bool
	Restart   *RestartPolicy
}

// Apply gives the policy as it would be.
func (c PolicyChange) Apply(p Policy) Policy {
	set(&p.Protected, c.Protected)
	set(&p.Restart, c.Restart)
	return p
}

// Normal spells out what is so by default.
func (p Policy) Normal() Policy {
	p.Restart = p.Restart.OrNever()
	return p
}

// protects refuses what would take a protected VM away, or what is on its disks.
func protects(v View, r Request) error {
	if !v.Intent.Policy.Protected || (r != Delete && r != RemoveDisk) {
		return nil
	}
	return errs.New(errs.Protected, "cannot %s %q: it is protected against deletion; take the protection away first (protected: false)", r.does(), v.Intent.Name)
}

// TooLate refuses to protect a VM whose deletion was accepted.
func (c Change) TooLate(v View) error {
	if c.Policy.Protected == nil || !*c.Policy.Protected || !(v.Intent.Deleting || beingDeleted(v)) {
		return nil
	}
	e := errs.New(errs.InvalidState, "cannot protect VM %q: it is being deleted", v.Intent.Name)
	return e.At(errs.Field{Pointer: "/protected", Message: "comes too late"})
}
