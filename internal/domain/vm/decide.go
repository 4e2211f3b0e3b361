package vm

import (
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Action is what a granted request becomes.
type Action string

// The actions.
const (
	// DoNothing: the VM is already as asked.
	DoNothing Action = "already_done"
	// DoJob: start the job of this request.
	DoJob Action = "job"
	// DoCancel: the job that holds the VM is its creation; deleting means cancelling it.
	DoCancel Action = "cancel"
)

// Decide answers a request about a VM as it appears now. The answer holds for
// this View alone: the control plane decides inside the transaction that writes.
func Decide(v View, r Request) (Action, error) {
	if err := protects(v, r); err != nil {
		return "", err
	}
	if v.Job != nil {
		return held(v, r)
	}
	if v.Intent.Lost != nil && r != Delete {
		return "", errs.New(errs.NodeRemoved, "cannot %s %q: %s", r.does(), v.Intent.Name, v.Intent.Lost.why())
	}
	state := Appear(v).State
	switch verdict := verdicts[state][r]; {
	case verdict == yes:
		return rested(v, r)
	case verdict == done && state == Stopped && unsettled(v.Intent):
		return DoJob, nil // its guest ended by itself: the wish that it runs, and its room, are still there
	case verdict == done:
		return DoNothing, nil
	default:
		return "", refuse(v, state, r)
	}
}

// held decides while a job holds the VM.
func held(v View, r Request) (Action, error) {
	if r == Delete && v.Job.makes(v.Intent.ID) && v.Job.Cancellable {
		return DoCancel, nil
	}
	return "", busy(v, r)
}

type verdict int

const (
	no verdict = iota
	yes
	done
)

// verdicts says for each state at rest what each request means; what is absent
// is refused. Transient states are held by a job, so Decide never reaches them
// but when a guest shuts itself down (stopping) or boots by its node's own
// record (starting).
var verdicts = map[State]map[Request]verdict{
	Pending:      {Delete: yes},
	Provisioning: {},
	Starting:     {Start: done, Stop: yes, Delete: yes},
	Running:      {Start: done, Stop: yes, Restart: yes, Pause: yes, Resume: done, Suspend: yes, Migrate: yes, Snapshot: yes, GrowDisk: yes, Limit: yes, ChangeCD: yes, Freeze: yes, Delete: yes},
	Paused:       {Stop: yes, Restart: yes, Pause: done, Resume: yes, Suspend: yes, Migrate: yes, Snapshot: yes, GrowDisk: yes, Limit: yes, ChangeCD: yes, Delete: yes},
	Suspended:    {Start: yes, Stop: yes, Resume: yes, Suspend: done, Migrate: yes, Limit: yes, Delete: yes},
	Stopping:     {Stop: yes, Delete: yes},
	Stopped:      {Start: yes, Stop: done, Restart: yes, Migrate: yes, Snapshot: yes, Restore: yes, Clone: yes, Capture: yes, Resize: yes, AddDisk: yes, GrowDisk: yes, RemoveDisk: yes, Limit: yes, ChangeCD: yes, Delete: yes},
	Migrating:    {},
	Restoring:    {},
	Deleting:     {Delete: yes},
	Failed:       {Start: yes, Stop: yes, Restart: yes, Migrate: yes, Restore: yes, Clone: yes, Capture: yes, Resize: yes, AddDisk: yes, GrowDisk: yes, RemoveDisk: yes, Limit: yes, ChangeCD: yes, Delete: yes},
	// the job waits until the node returns or is removed for good
	Unknown: {Stop: yes, Delete: yes},
}

func busy(v View, r Request) error {
	what := "job " + v.Job.ID.String() + " (" + v.Job.Kind + ")"
	hint := "wait for it"
	if v.Job.Cancellable {
		hint = "wait for it or cancel it"
	}
	if v.Job.Attention {
		hint = "it stopped half-way: retry it"
	}
	return errs.New(errs.VMBusy, "cannot %s %q: %s holds it; %s", r.does(), v.Intent.Name, what, hint).
		HeldBy(v.Job.ID.String())
}

func refuse(v View, s State, r Request) error {
	if s == Unknown {
		return errs.New(errs.NodeUnreachable,
			"cannot %s %q: its node %s does not report, so nobody can tell what runs there; bring the node back, or remove it by force if its host is off for good",
			r.does(), v.Intent.Name, v.Node.Name)
	}
	hint := ""
	if r == ChangeCD && s == Suspended {
		hint = ", and its guest would find another CD than the one that it remembers; resume it first"
	}
	if mustRest[r] && verdicts[s][Stop] == yes {
		hint = "; stop it first"
	}
	return errs.New(errs.InvalidState, "cannot %s %q: it is %s%s", r.does(), v.Intent.Name, s, hint)
}
