package vm

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Policy is what is decided of a VM's life, beside what it is made of. It may be
// changed at any time.
type Policy struct {
	// Protected: is its deletion, and that of its disks, refused?
	Protected bool
	// Restart is never when empty.
	Restart RestartPolicy
	// ByHand: is it left alone when its node's host starts? Otherwise it is started
	// again there if it ran.
	ByHand bool
	// StartOrder is its place in what a host that starts brings up, lower ones first;
	// StartDelay is how long the node then waits before the next place.
	StartOrder int
	StartDelay time.Duration
	// Drain is live when empty.
	Drain DrainPolicy
}

// Bounds of a VM's place in what a host brings up.
const (
	MaxStartOrder = 1000
	MaxStartDelay = time.Hour
)

// PolicyChange is what is to be different of a Policy. Nil fields stay.
type PolicyChange struct {
	Protected *bool
	Restart   *RestartPolicy
	// Autostart is the opposite of Policy.ByHand.
	Autostart         *bool
	StartOrder        *int
	StartDelaySeconds *int64
	Drain             *DrainPolicy
}

// Apply gives the policy as it would be.
func (c PolicyChange) Apply(p Policy) Policy {
	set(&p.Protected, c.Protected)
	set(&p.Restart, c.Restart)
	set(&p.StartOrder, c.StartOrder)
	set(&p.Drain, c.Drain)
	if c.Autostart != nil {
		p.ByHand = !*c.Autostart
	}
	if s := c.StartDelaySeconds; s != nil {
		p.StartDelay = seconds(*s)
	}
	return p
}

// Normal spells out what is so by default.
func (p Policy) Normal() Policy {
	p.Restart, p.Drain = p.Restart.OrNever(), p.Drain.OrLive()
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

// seconds makes a duration of what a request names; what is too long stays too
// long, instead of coming out as something else.
func seconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(min(max(n, -most), most)) * time.Second
}

// policy checks what is decided of a VM's life.
func (v *validation) policy(p Policy) {
	v.restartPolicy(p.Restart)
	v.between("/start_order", int64(p.StartOrder), 0, MaxStartOrder, plain)
	v.drainPolicy(p.Drain)
	v.between("/start_delay_seconds", int64(p.StartDelay/time.Second), 0, int64(MaxStartDelay/time.Second), plain)
}
