package vm

// State is the appearance of a VM: what users see. It is never stored; Appear
// computes it. There are exactly these 13.
type State string

// The 13 states, in the order of a life.
const (
	Pending      State = "pending"
	Provisioning State = "provisioning"
	Starting     State = "starting"
	Running      State = "running"
	Paused       State = "paused"
	Suspended    State = "suspended"
	Stopping     State = "stopping"
	Stopped      State = "stopped"
	Migrating    State = "migrating"
	Restoring    State = "restoring"
	Deleting     State = "deleting"
	Failed       State = "failed"
	Unknown      State = "unknown"
)

// States lists all states.
func States() []State {
	return []State{
		Pending, Provisioning, Starting, Running, Paused, Suspended, Stopping,
		Stopped, Migrating, Restoring, Deleting, Failed, Unknown,
	}
}

// Transient tells whether the state ends by itself, because a job drives it.
func (s State) Transient() bool {
	switch s {
	case Provisioning, Starting, Stopping, Migrating, Restoring, Deleting:
		return true
	case Pending, Running, Paused, Suspended, Stopped, Failed, Unknown:
		return false
	}
	return false
}

// Phase is what an agent observed of one incarnation: a fact about processes on
// one host, not a judgement.
type Phase string

// The phases of an incarnation.
const (
	PhaseStarting  Phase = "starting"  // hypervisor process launched, guest not yet executing
	PhaseIncoming  Phase = "incoming"  // waits for the memory of a machine that runs elsewhere; executes nothing
	PhaseRunning   Phase = "running"   // guest executing
	PhasePaused    Phase = "paused"    // vCPUs halted, memory resident
	PhaseStopping  Phase = "stopping"  // a shutdown was asked of the guest
	PhaseSuspended Phase = "suspended" // memory saved to disk, process gone
	PhaseExited    Phase = "exited"    // process gone, as asked or by the guest's own power-off
	PhaseCrashed   Phase = "crashed"   // process gone, nobody asked
)

// Phases lists all phases.
func Phases() []Phase {
	return []Phase{
		PhaseStarting, PhaseIncoming, PhaseRunning, PhasePaused, PhaseStopping,
		PhaseSuspended, PhaseExited, PhaseCrashed,
	}
}

// Valid tells whether p is one of Phases.
func (p Phase) Valid() bool {
	switch p {
	case PhaseStarting, PhaseIncoming, PhaseRunning, PhasePaused, PhaseStopping, PhaseSuspended, PhaseExited, PhaseCrashed:
		return true
	}
	return false
}

// OnNode tells whether a hypervisor process exists in this phase, holding the
// node's memory and the images' locks.
func (p Phase) OnNode() bool {
	switch p {
	case PhaseStarting, PhaseIncoming, PhaseRunning, PhasePaused, PhaseStopping:
		return true
	case PhaseSuspended, PhaseExited, PhaseCrashed:
		return false
	}
	return false
}

// Request is what a user asks of a VM. Requests are verbs and another type than
// states on purpose.
type Request string

// The requests.
const (
	Start    Request = "start"
	Stop     Request = "stop"
	Restart  Request = "restart"
	Pause    Request = "pause"
	Resume   Request = "resume"
	Suspend  Request = "suspend"
	Migrate  Request = "migrate"
	Snapshot Request = "snapshot"
	Restore  Request = "restore"
	Resize   Request = "resize"
	Clone    Request = "clone"
	// Capture makes an image of one of its disks.
	Capture Request = "capture"
	// Of its disks.
	AddDisk    Request = "add_disk"
	GrowDisk   Request = "grow_disk"
	RemoveDisk Request = "remove_disk"
	// Limit changes what it may take of its node.
	Limit Request = "limit"
	// ChangeCD changes what is in its CD drive.
	ChangeCD Request = "change_cd"
	// Freeze halts its guest's file systems for a moment.
	Freeze Request = "freeze"
	Delete Request = "delete"
)

// Requests lists all requests.
func Requests() []Request {
	return []Request{Start, Stop, Restart, Pause, Resume, Suspend, Migrate, Snapshot, Restore, Clone, Capture, Resize, AddDisk, GrowDisk, RemoveDisk, Limit, ChangeCD, Freeze, Delete}
}
