package migration

import (
	"slices"
	"strings"
	"time"
)

// Step is what a stall is answered with.
type Step string

// The steps.
const (
	// Throttle slows the guest's processors down, more with each time.
	Throttle Step = "throttle"
	// Lengthen allows the guest to be halted for longer at the end, twice as long with each
	// time.
	Lengthen Step = "downtime"
	// GiveUp breaks the move off, and the guest goes on where it is.
	GiveUp Step = "give_up"
	// Wait changes nothing: it may come to its end, or its time is over.
	Wait Step = "wait"
)

// Steps is an order of steps, each but the last tried for as long as it has something to
// add, as text that parts them by commas.
type Steps string

// DefaultSteps are taken where nothing is said: the move is given up when its time is over.
const DefaultSteps Steps = "throttle,downtime"

// StepsOf joins names; an empty one among them is none that is valid.
func StepsOf(names []string) Steps {
	if slices.Contains(names, "") {
		return ","
	}
	return Steps(strings.Join(names, ","))
}

// Names parts them; none of none.
func (s Steps) Names() []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), ",")
}

// Has tells whether a step is one of them.
func (s Steps) Has(step Step) bool { return slices.Contains(s.Names(), string(step)) }

// Valid tells whether they can be taken in their order: each is one, none comes twice,
// nothing after giving up, and nothing beside waiting.
func (s Steps) Valid() bool {
	names := s.Names()
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return false
		}
		switch Step(n) {
		case Throttle, Lengthen:
		case GiveUp:
			if i != len(names)-1 {
				return false
			}
		case Wait:
			if len(names) != 1 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// Means are what a move under way is given.
type Means struct {
	// Throttle is the share of time, in percent, that the guest's processors are kept from
	// executing.
	Throttle int
	// Downtime is for how long its guest may be halted at the end.
	Downtime time.Duration
}

// shares are by what processors are slowed down, one after the other.
var shares = []int{40, 70, 90, 99}

// Answer gives the next step for a stall, and the means from then on; longest is for how
// long the guest may be halted at all. Neither slower processors nor a longer halt help
// where nothing flows.
func (s Steps) Answer(why Stall, now Means, longest time.Duration) (Step, Means) {
	for _, n := range s.Names() {
		next := now
		switch Step(n) {
		case GiveUp:
			return GiveUp, now
		case Throttle:
			if i := slices.IndexFunc(shares, func(share int) bool { return share > now.Throttle }); i >= 0 {
				next.Throttle = shares[i]
			}
		case Lengthen:
			next.Downtime = max(now.Downtime, min(2*now.Downtime, longest))
		case Wait, Anew:
		}
		if why == Outrun && next != now {
			return Step(n), next
		}
	}
	return Wait, now
}

// Escalation is one step that was taken.
type Escalation struct {
	Step  Step
	Stall Stall
	// Reason is what was seen, for people.
	Reason string
	// Means from then on.
	Means
	At time.Time
}
