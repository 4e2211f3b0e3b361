package vm

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// RestartPolicy says when the control plane starts a VM again whose guest ended
// without anybody asking for it through NovaCron.
type RestartPolicy string

// The policies.
const (
	// RestartNever leaves it ended.
	RestartNever RestartPolicy = "never"
	// RestartOnFailure starts again what crashed or could not be started, and not what
	// powered itself off.
	RestartOnFailure RestartPolicy = "on_failure"
	// RestartAlways starts it again whatever ended it.
	RestartAlways RestartPolicy = "always"
)

// RestartPolicies lists all policies.
func RestartPolicies() []RestartPolicy {
	return []RestartPolicy{RestartNever, RestartOnFailure, RestartAlways}
}

// OrNever is the policy of what says nothing.
func (p RestartPolicy) OrNever() RestartPolicy {
	if p == "" {
		return RestartNever
	}
	return p
}

// Backoff is how patiently a VM is started again.
type Backoff struct {
	// First is how long the first restart in a row waits; each further one waits twice
	// as long, and none longer than Most.
	First, Most time.Duration
	// Tries in a row are made, and no more.
	Tries int
	// Healthy is how long a VM has to go on after a restart for the next one to be the
	// first in a row again.
	Healthy time.Duration
}

// DefaultBackoff waits 2, 4, 8 … 256 and then 300 seconds, gives up after ten in
// a row, a quarter of an hour altogether, and takes ten minutes for health.
func DefaultBackoff() Backoff {
	return Backoff{First: 2 * time.Second, Most: 5 * time.Minute, Tries: 10, Healthy: 10 * time.Minute}
}

// delay is how long the restart after so many in a row waits.
func (b Backoff) delay(done int) time.Duration {
	d := b.First
	for range done {
		if d = 2 * d; d >= b.Most {
			return b.Most
		}
	}
	return min(d, b.Most)
}

// Restarts is what became of a VM by its restart policy since somebody started
// it. The zero value is of one that was not restarted.
type Restarts struct {
	// Total counts the restarts, InARow those since it was last healthy.
	Total, InARow int
	// Reason is why it ended last, at EndedAt.
	Reason  string
	EndedAt time.Time
	// LastAt is when it was last started again, NextAt when it will be; nil when it was
	// not, or is not to be.
	LastAt, NextAt *time.Time
	// GaveUpAt is when it ended once too often; nil while it did not.
	GaveUpAt *time.Time
}

// RestartAction is what to do about a VM whose guest ended.
type RestartAction string

// The actions.
const (
	// RestartNothing: it runs, or nobody wants it restarted, or not now.
	RestartNothing RestartAction = "nothing"
	// RestartNote: remember when, or that it is over.
	RestartNote RestartAction = "note"
	// RestartStart: start it now.
	RestartStart RestartAction = "start"
)

// PlanRestart decides what the policy makes of a VM now, and what to remember with
// that. A plan is made in the moment that an end is seen, and carried out when its
// time has come.
func (v View) PlanRestart(now time.Time, b Backoff) (RestartAction, Restarts) {
	r := v.Restarts
	why, at, ended := v.endedByItself()
	switch {
	case !ended:
		return RestartNothing, r
	case !r.EndedAt.Equal(at) || (r.NextAt == nil && r.GaveUpAt == nil):
		return RestartNote, r.after(why, at, now, b)
	case r.GaveUpAt != nil || now.Before(*r.NextAt):
		return RestartNothing, r
	}
	r.Total, r.InARow, r.LastAt, r.NextAt = r.Total+1, r.InARow+1, &now, nil
	return RestartStart, r
}

// after takes note of an end.
func (r Restarts) after(why string, at, now time.Time, b Backoff) Restarts {
	if r.LastAt != nil && now.Sub(*r.LastAt) >= b.Healthy {
		r.InARow = 0
	}
	r.Reason, r.EndedAt, r.NextAt, r.GaveUpAt = why, at, nil, nil
	if r.InARow >= b.Tries {
		r.GaveUpAt = &now
		return r
	}
	next := now.Add(b.delay(r.InARow))
	r.NextAt = &next
	return r
}

// endedByItself tells of a VM that should run, whose guest ended, and whose policy
// is to start it again.
func (v View) endedByItself() (why string, at time.Time, ok bool) {
	if v.leftAlone() || v.Observed.Epoch != v.Intent.Epoch || (v.Observed.Phase != PhaseExited && v.Observed.Phase != PhaseCrashed) {
		return "", at, false
	}
	a := atRest(v)
	return a.Reason, a.Since, v.Intent.Policy.Restart.covers(a.State)
}

// leftAlone: nobody wants it to run, a job holds it, or its node could not be
// asked.
func (v View) leftAlone() bool {
	in := v.Intent
	return v.Job != nil || !in.PowerOn || in.Deleting || in.Lost != nil || v.Observed == nil ||
		v.Node == nil || !v.Node.Reporting || v.Node.Held
}

// covers tells whether the policy is about a VM that ended in a state.
func (p RestartPolicy) covers(s State) bool {
	return p == RestartAlways || (p == RestartOnFailure && s == Failed)
}

// withRestarts adds to why a VM is at rest what its policy makes of that.
func withRestarts(v View, a Appearance) Appearance {
	if v.Job != nil || !v.Intent.PowerOn || v.Intent.Policy.Restart.OrNever() == RestartNever || (a.State != Failed && a.State != Stopped) {
		return a
	}
	switch r := v.Restarts; {
	case r.GaveUpAt != nil:
		a.Reason += "; it was started again " + plain(int64(r.InARow)) + " times in a row and is not any more: look at its log, then start it"
	case r.NextAt != nil:
		a.Reason += "; it is started again at " + r.NextAt.UTC().Format(time.TimeOnly) + " UTC"
		if r.InARow > 0 {
			a.Reason += ", after " + plain(int64(r.InARow)) + " restarts in a row"
		}
	}
	return a
}

// restartPolicy checks a policy; none is RestartNever.
func (v *validation) restartPolicy(p RestartPolicy) {
	switch p {
	case "", RestartNever, RestartOnFailure, RestartAlways:
	default:
		v.refuse(errs.InvalidField, "/restart_policy", "must be never, on_failure or always", "never, on_failure, always", string(p))
	}
}
