package vm

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var testBackoff = Backoff{First: time.Second, Most: 8 * time.Second, Tries: 3, Healthy: time.Minute}

func ended(p Phase, policy RestartPolicy) View {
	v := at(Stopped)
	v.Observed.Phase = p
	v.Intent.PowerOn, v.Intent.Policy.Restart = true, policy
	return v
}

// Which end each policy is about, and what is left alone.
func TestRestartPolicies(t *testing.T) {
	failed := ended(PhaseExited, RestartOnFailure)
	failed.Intent.Failure = &Failure{Code: "host_failure", Message: "no memory", At: time.Unix(90, 0)}
	but := func(f func(*View)) View {
		v := ended(PhaseCrashed, RestartAlways)
		f(&v)
		return v
	}
	for name, c := range map[string]struct {
		v    View
		want RestartAction
	}{
		"crashed, never":            {ended(PhaseCrashed, RestartNever), RestartNothing},
		"crashed, nothing said":     {ended(PhaseCrashed, ""), RestartNothing},
		"crashed, on failure":       {ended(PhaseCrashed, RestartOnFailure), RestartNote},
		"crashed, always":           {ended(PhaseCrashed, RestartAlways), RestartNote},
		"powered off, on failure":   {ended(PhaseExited, RestartOnFailure), RestartNothing},
		"powered off, always":       {ended(PhaseExited, RestartAlways), RestartNote},
		"did not start, on failure": {failed, RestartNote},
		"runs":                      {ended(PhaseRunning, RestartAlways), RestartNothing},
		"suspended":                 {ended(PhaseSuspended, RestartAlways), RestartNothing},
		"stopped by somebody":       {but(func(v *View) { v.Intent.PowerOn = false }), RestartNothing},
		"held by a job":             {but(func(v *View) { v.Job = &JobView{Kind: JobStop} }), RestartNothing},
		"being deleted":             {but(func(v *View) { v.Intent.Deleting = true }), RestartNothing},
		"lost":                      {but(func(v *View) { v.Intent.Lost = &Lost{Node: "n1"} }), RestartNothing},
		"its node is away":          {but(func(v *View) { v.Node.Reporting = false }), RestartNothing},
		"its node is held":          {but(func(v *View) { v.Node.Held = true }), RestartNothing},
		"a later incarnation began": {but(func(v *View) { v.Intent.Epoch++ }), RestartNothing},
		"the database is behind":    {but(func(v *View) { v.Intent.Epoch-- }), RestartNothing},
		"nothing was ever seen":     {but(func(v *View) { v.Observed = nil }), RestartNothing},
		"no node":                   {but(func(v *View) { v.Node = nil }), RestartNothing},
	} {
		if got, _ := c.v.PlanRestart(time.Unix(100, 0), testBackoff); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A VM that ends again and again is started again ever more slowly, and then not
// any more; one that was healthy meanwhile begins anew.
func TestCrashLoop(t *testing.T) {
	v := ended(PhaseCrashed, RestartOnFailure)
	now := time.Unix(1000, 0)
	crash := func() { v.Observed.Since = now }
	plan := func(want RestartAction) {
		t.Helper()
		got, next := v.PlanRestart(now, testBackoff)
		if got != want {
			t.Fatalf("at %v: %s, want %s (%+v)", now, got, want, v.Restarts)
		}
		if got != RestartNothing {
			v.Restarts = next
		}
	}
	for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		crash()
		plan(RestartNote)
		if got := v.Restarts.NextAt.Sub(now); got != wait {
			t.Fatalf("restart %d waits %v, want %v", i+1, got, wait)
		}
		if a := Appear(v); a.State != Failed || !strings.Contains(a.Reason, "it is started again at ") {
			t.Errorf("while it waits: %+v", a)
		}
		now = now.Add(wait - time.Millisecond)
		plan(RestartNothing)
		now = now.Add(time.Millisecond)
		plan(RestartStart)
		now = now.Add(time.Second)
	}
	crash()
	plan(RestartNote)
	if v.Restarts.GaveUpAt == nil || v.Restarts.Total != 3 || v.Restarts.InARow != 3 {
		t.Fatalf("%+v", v.Restarts)
	}
	if a := Appear(v); a.State != Failed || !strings.Contains(a.Reason, "3 times in a row and is not any more") {
		t.Errorf("given up: %+v", a)
	}
	now = now.Add(24 * time.Hour)
	plan(RestartNothing)

	v.Restarts.GaveUpAt = nil // somebody cleared it: a long life before the next end
	crash()
	plan(RestartNote)
	if v.Restarts.InARow != 0 || v.Restarts.Total != 3 || v.Restarts.NextAt.Sub(now) != time.Second {
		t.Errorf("after a healthy day: %+v", v.Restarts)
	}
}

// Whatever happens, a row of restarts is never longer than its limit, no restart
// comes before its time, and waits are within their bounds.
func TestRestartsAreBounded(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	for range 200 {
		v := ended(PhaseCrashed, RestartAlways)
		now := time.Unix(1000, 0)
		var starts []time.Time
		for range 300 {
			now = now.Add(time.Duration(r.Int64N(int64(6 * time.Second))))
			action, next := v.PlanRestart(now, testBackoff)
			if action == RestartStart {
				if v.Restarts.NextAt == nil || now.Before(*v.Restarts.NextAt) {
					t.Fatalf("seed %d: started before its time: %+v", seed, v.Restarts)
				}
				starts = append(starts, now)
				v.Observed.Since, v.Observed.Phase = now, pickPhase(r) // it ends at once
			}
			if action != RestartNothing {
				v.Restarts = next
			}
			if n := v.Restarts.NextAt; n != nil && n.Sub(now) > testBackoff.Most {
				t.Fatalf("seed %d: waits %v", seed, n.Sub(now))
			}
			if v.Restarts.InARow > testBackoff.Tries {
				t.Fatalf("seed %d: %+v", seed, v.Restarts)
			}
		}
		if len(starts) > testBackoff.Tries {
			t.Fatalf("seed %d: %d starts of what never lived for %v", seed, len(starts), testBackoff.Healthy)
		}
	}
}

func pickPhase(r *rand.Rand) Phase {
	return []Phase{PhaseExited, PhaseCrashed}[r.IntN(2)]
}
