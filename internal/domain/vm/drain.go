package vm

import "github.com/novacron/novacron/internal/vocab/errs"

// DrainPolicy says what becomes of a VM when its node is emptied.
type DrainPolicy string

// The policies.
const (
	// DrainLive moves it while it runs where that can be done; else as DrainCold.
	DrainLive DrainPolicy = "live"
	// DrainCold shuts its guest down in order, moves it, and starts it again. One that
	// does not run is moved as it is.
	DrainCold DrainPolicy = "cold"
	// DrainStop shuts its guest down, and leaves it on its node.
	DrainStop DrainPolicy = "stop"
	// DrainRefuse leaves it as it is: whoever empties the node is told.
	DrainRefuse DrainPolicy = "refuse"
)

// DrainPolicies lists all policies.
func DrainPolicies() []DrainPolicy {
	return []DrainPolicy{DrainLive, DrainCold, DrainStop, DrainRefuse}
}

// OrLive is the policy of what says nothing.
func (p DrainPolicy) OrLive() DrainPolicy {
	if p == "" {
		return DrainLive
	}
	return p
}

// Or is the policy where it says something, and the other where not.
func (p DrainPolicy) Or(other DrainPolicy) DrainPolicy {
	if p == "" {
		return other.OrLive()
	}
	return p
}

// Valid tells whether p is one of DrainPolicies.
func (p DrainPolicy) Valid() bool {
	switch p {
	case DrainLive, DrainCold, DrainStop, DrainRefuse:
		return true
	}
	return false
}

// HasProcess tells whether a hypervisor's process of it was reported last.
func (v View) HasProcess() bool { return v.Observed != nil && v.Observed.Phase.OnNode() }

// Rests tells whether it has no process, and nothing starts it again meanwhile but a
// request.
func (v View) Rests() bool { return !v.HasProcess() && !unsettled(v.Intent) }

// drainPolicy checks a policy; none is DrainLive.
func (v *validation) drainPolicy(p DrainPolicy) {
	if p != "" && !p.Valid() {
		v.refuse(errs.InvalidField, "/drain_policy", "must be live, cold, stop or refuse", "live, cold, stop, refuse", string(p))
	}
}
