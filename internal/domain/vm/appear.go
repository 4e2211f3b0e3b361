package vm

import "time"

// Appearance is what users see of a VM: a state, why, and since when.
type Appearance struct {
	State  State
	Reason string
	Since  time.Time
	// Last is the state beneath Unknown; empty otherwise.
	Last State
}

// Appear computes a VM's appearance. It is total: every View has exactly one.
//
// A VM with a process, or that may have one, on a node that does not report is
// unknown, whatever a job believes: the job will find out, users must not be
// told a guess. A VM that has no process is not: its disks rest, and no node
// can change that.
func Appear(v View) Appearance {
	base := beneath(v)
	if v.Node != nil && v.Node.Held && v.Intent.Epoch > 0 && v.Observed == nil {
		return Appearance{
			State: Unknown, Since: v.Node.SeenAt, Last: base.State,
			Reason: "recovery hold: node " + v.Node.Name + " has told nothing of it; 'novacron recovery show' says what is known",
		}
	}
	if v.Node == nil || v.Node.Reporting || !mayHaveProcess(v) {
		return base
	}
	why := "node " + v.Node.Name + " does not report"
	if v.Job != nil && v.Job.WaitReason != "" {
		why = v.Job.WaitReason // what becomes of the request when it returns
	}
	return Appearance{
		State:  Unknown,
		Reason: why + "; last known state: " + string(base.State),
		Since:  v.Node.SeenAt,
		Last:   base.State,
	}
}

func mayHaveProcess(v View) bool {
	if v.Observed != nil && v.Observed.Phase.OnNode() {
		return true
	}
	// An incarnation was decided and never reported: the command may have arrived.
	return v.Intent.Epoch > 0 && (v.Observed == nil || v.Observed.Epoch < v.Intent.Epoch)
}

func beneath(v View) Appearance {
	if l := v.Intent.Lost; l != nil && !beingDeleted(v) {
		// whatever was under way or observed ended with the node
		return Appearance{State: Failed, Reason: l.why(), Since: l.At}
	}
	if v.Job != nil {
		return duringJob(v, *v.Job)
	}
	return withRestarts(v, atRest(v))
}

func beingDeleted(v View) bool { return v.Job != nil && v.Job.Kind == JobDelete }

// duringJob: a job holds the VM, and the state says what is under way.
func duringJob(v View, j JobView) Appearance {
	since, reason := j.CreatedAt, j.WaitReason
	if j.Attention {
		return Appearance{State: Failed, Reason: reason, Since: since}
	}
	if j.makes(v.Intent.ID) {
		return duringCreate(v, j)
	}
	switch j.Kind {
	case JobStart:
		return launching(v, since, reason)
	case JobStop, JobSuspend:
		return ending(v, since, reason)
	case JobRestart:
		if current(v) && v.Observed.Phase.OnNode() {
			return observed(*v.Observed, v.Intent)
		}
		return Appearance{State: Starting, Reason: reason, Since: since}
	case JobDelete:
		return Appearance{State: Deleting, Reason: reason, Since: since}
	case JobMigrate, JobMigrateLive, JobMigrateWarm:
		return Appearance{State: Migrating, Reason: reason, Since: since}
	default:
		// pause, resume: the guest is as observed until the agent says otherwise
		return atRest(v)
	}
}

func duringCreate(v View, j JobView) Appearance {
	switch {
	case v.Intent.NodeID == nil:
		a := Appearance{State: Pending, Reason: j.WaitReason, Since: v.Intent.CreatedAt}
		if v.Intent.Placement != nil {
			a.Reason = v.Intent.Placement.Summary
		}
		return a
	case v.Intent.Epoch == 0:
		return Appearance{State: Provisioning, Reason: j.WaitReason, Since: j.CreatedAt}
	default:
		return launching(v, j.CreatedAt, j.WaitReason)
	}
}

func launching(v View, since time.Time, reason string) Appearance {
	if current(v) && v.Observed.Phase.OnNode() {
		return observed(*v.Observed, v.Intent)
	}
	return Appearance{State: Starting, Reason: reason, Since: since}
}

func ending(v View, since time.Time, reason string) Appearance {
	if current(v) && !v.Observed.Phase.OnNode() {
		return observed(*v.Observed, v.Intent)
	}
	return Appearance{State: Stopping, Reason: reason, Since: since}
}

// current tells whether the observation is of the incarnation decided last. One of
// a later incarnation is what the VM's host has and an older database that was put
// back does not know yet: what is there counts.
func current(v View) bool { return v.Observed != nil && v.Observed.Epoch >= v.Intent.Epoch }

// atRest: no job holds the VM.
func atRest(v View) Appearance {
	in := v.Intent
	if in.Deleting {
		return Appearance{State: Deleting, Since: in.UpdatedAt}
	}
	current := current(v)
	if current && v.Observed.Phase.OnNode() {
		return observed(*v.Observed, in)
	}
	if v.Observed != nil && v.Observed.Phase == PhaseSuspended { // also where a start got no further than its epoch
		return setAside(*v.Observed, in)
	}
	if in.Failure != nil {
		return Appearance{State: Failed, Reason: in.Failure.Message, Since: in.Failure.At}
	}
	if current {
		return observed(*v.Observed, in)
	}
	if in.NodeID == nil {
		a := Appearance{State: Pending, Reason: "no node is chosen yet", Since: in.CreatedAt}
		if in.Placement != nil {
			a.Reason = in.Placement.Summary
		}
		return a
	}
	return Appearance{State: Stopped, Since: in.UpdatedAt}
}

// setAside: its memory is saved, and whatever failed since has not changed that.
func setAside(o Observation, in Intent) Appearance {
	a := observed(o, in)
	if in.Failure != nil {
		a.Reason = "its memory is kept; " + in.Failure.Message
	}
	return a
}

// observed turns a phase into a state.
func observed(o Observation, in Intent) Appearance {
	a := Appearance{Reason: o.Reason, Since: o.Since}
	switch o.Phase {
	case PhaseStarting:
		a.State = Starting
	case PhaseIncoming:
		a.State = Migrating
	case PhaseRunning:
		a.State = Running
	case PhasePaused:
		a.State = Paused
	case PhaseStopping:
		a.State = Stopping
	case PhaseSuspended:
		a.State = Suspended
	case PhaseExited:
		a.State = Stopped
		if in.PowerOn && a.Reason == "" {
			a.Reason = "the guest powered itself off"
		}
	case PhaseCrashed:
		a.State = Failed
		if a.Reason == "" {
			a.Reason = "the hypervisor process ended unexpectedly"
		}
	}
	return a
}
