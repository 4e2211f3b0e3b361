// Package drain holds the rules of emptying a node, and of giving back to it what was
// taken: what becomes of each VM, where it would go, in which order, and what follows
// what. It is pure: the control plane carries out what it says.
//
// # What is done with a VM
//
//	live   move
//	cold   stop ── move ── start     one that executes; any other is moved as it is
//	stop   stop
//	start  start                     one that a drain stopped
//
// Each is a job of the VM, the same as if it were asked for by a person. A move that
// fails after its VM was stopped is followed by a start where it is.
//
// # States of a VM in a drain
//
//	queued ── running ──┬── done
//	   │                └── failed
//	   └── left     nothing is done with it; why says so
package drain

import (
	"time"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Kinds of jobs.
const (
	JobDrain  = "node.drain"
	JobReturn = "node.return"
)

// Kind is what is done with a node.
type Kind string

// The kinds.
const (
	// Empty takes its VMs from it.
	Empty Kind = "drain"
	// Refill gives back what was taken.
	Refill Kind = "return"
)

// Job is the kind of job that does it.
func (k Kind) Job() string {
	if k == Refill {
		return JobReturn
	}
	return JobDrain
}

// Action is what is done with a VM.
type Action string

// The actions.
const (
	Live  Action = "live"
	Cold  Action = "cold"
	Stop  Action = "stop"
	Start Action = "start"
	// Leave: nothing is to be done with it.
	Leave Action = "leave"
	// Block: something would have to be done with it, and cannot be.
	Block Action = "block"
)

// State is how far a VM is.
type State string

// The states.
const (
	Queued  State = "queued"
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
	Left    State = "left"
)

// Stage is one job of what is done with a VM.
type Stage string

// The stages.
const (
	Stopping Stage = "stop"
	Moving   Stage = "move"
	Starting Stage = "start"
	// Restoring starts a VM where it is, since it could not be moved.
	Restoring Stage = "start again"
)

// Item is what becomes of one VM.
type Item struct {
	VM     id.ID
	Name   string
	Action Action
	// Runs: does it execute, and is to do so again?
	Runs bool
	// Target is where it goes; empty unless it moves.
	Target migration.Place
	// Why, of what is blocked, left, failed or waits; or why it is not done better.
	Why string

	State State
	Stage Stage
	// Job is the VM's own; JobState and JobError are how far that is.
	Job      *id.ID
	JobState job.State
	JobError string

	StartedAt, FinishedAt *time.Time
}

// Moves tells whether it goes to another node.
func (i Item) Moves() bool { return i.Action == Live || i.Action == Cold }

// First is what is done first; rests tells whether nothing is left to stop.
func (i Item) First(rests bool) Stage {
	switch {
	case i.Action == Stop, i.Action == Cold && !rests:
		return Stopping
	case i.Action == Start:
		return Starting
	default:
		return Moving
	}
}

// After is what follows a stage that ended well or not: another one, or an end.
func (i Item) After(done Stage, well bool) (next Stage, end State) {
	cold := i.Action == Cold && i.Runs
	switch {
	case done == Moving && !well && cold:
		return Restoring, Running
	case !well, done == Restoring:
		return "", Failed
	case done == Stopping && i.Action == Cold:
		return Moving, Running
	case done == Moving && cold:
		return Starting, Running
	default:
		return "", Done
	}
}

// Drain is the record of one.
type Drain struct {
	// ID is its job's.
	ID   id.ID
	Node migration.Place
	Kind Kind
	// State is running, succeeded, failed or cancelled.
	State string
	Request
	CreatedBy, RequestID string
	CreatedAt            time.Time
	FinishedAt           *time.Time
	Items                []Item
}

// UnderWay is the State of one whose job goes on.
const UnderWay = "running"

// In gives those of its VMs that are in a state.
func (d Drain) In(s State) (out []Item) {
	for _, i := range d.Items {
		if i.State == s {
			out = append(out, i)
		}
	}
	return out
}

// Request is what a person asks for.
type Request struct {
	// Policy stands before what the VMs have; empty for that.
	Policy vm.DrainPolicy
	// Parallel is how many VMs are worked on at a time.
	Parallel int
	// Grace is how long a guest may take to shut down.
	Grace time.Duration
	// Partial: is what can be done to be done, where not everything can?
	Partial bool
	// Reason is kept with the record.
	Reason string
}

// Bounds and defaults of a request.
const (
	DefaultParallel = 2
	MaxParallel     = 32
	DefaultGrace    = time.Minute
	MaxGrace        = time.Hour
)

// Validate refuses what cannot be done, and fills in what was not said.
func (r *Request) Validate() error {
	if r.Parallel == 0 {
		r.Parallel = DefaultParallel
	}
	switch {
	case r.Policy != "" && !r.Policy.Valid():
		return errs.New(errs.InvalidField, "a drain policy is live, cold, stop or refuse").
			At(errs.Field{Pointer: "/policy", Message: "must be live, cold, stop or refuse", Limit: "live, cold, stop, refuse", Got: errs.Clip(string(r.Policy))})
	case r.Parallel < 1 || r.Parallel > MaxParallel:
		return errs.New(errs.OutOfRange, "1 to %d VMs are worked on at a time", MaxParallel).
			At(errs.Field{Pointer: "/parallel", Message: "is out of range", Limit: "1 to 32"})
	case r.Grace < 0 || r.Grace > MaxGrace:
		return errs.New(errs.OutOfRange, "the grace period is 0 to %v", MaxGrace).
			At(errs.Field{Pointer: "/grace_seconds", Message: "is out of range", Limit: "0 to 3600"})
	}
	if len(r.Reason) > migration.MaxReason {
		return errs.New(errs.TooLarge, "a reason has up to %d bytes", migration.MaxReason).At(errs.Field{Pointer: "/reason", Message: "is too long", Limit: "500"})
	}
	return nil
}
