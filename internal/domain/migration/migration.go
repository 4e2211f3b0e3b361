// Package migration holds the rules of moving VMs between nodes: what can move, where to,
// what it would take, and what is kept of it. It is pure: the control plane carries out
// what it says.
package migration

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Kind is how a VM is moved.
type Kind string

// The kinds.
const (
	// Cold: nothing executes, and everything is copied.
	Cold Kind = "cold"
	// Live: the guest executes while its memory and its disks are copied, and is halted for
	// a moment at the end.
	Live Kind = "live"
	// Warm: the guest executes while its disks are copied ahead, in rounds, for as long as who
	// asked wants; then it is halted once, for the last round and all of its memory.
	Warm Kind = "warm"
)

// Executing tells whether the guest executes while most of it is copied.
func (k Kind) Executing() bool { return k == Live || k == Warm }

// State is how far a migration is.
type State string

// The states.
const (
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// States lists all states.
func States() []State { return []State{Running, Succeeded, Failed, Cancelled} }

// Phases of a migration, as its record names them.
const (
	PhaseCopying = "copying"
	// Of a live one: its disks and then its memory are copied while the guest executes; the
	// guest is halted and the rest goes over; the target has everything; the guest executes
	// there.
	PhaseDisks = "disks"
	// PhaseWarm is of a warm one, in place of disks and memory: the rounds.
	PhaseWarm       = "warm"
	PhaseMemory     = "memory"
	PhaseSwitchover = "switchover"
	PhaseSent       = "sent"
	PhaseResumed    = "resumed"

	PhaseSwapped  = "swapped"
	PhaseCleaning = "cleaning"
	PhaseBack     = "swapped back"
)

// Migration is the record of one. It outlives its VM.
type Migration struct {
	// ID is its job's.
	ID        id.ID
	ProjectID id.ID
	VM        id.ID
	VMName    string
	Kind      Kind
	State     State
	// Reason is why, in the words of who asked.
	Reason         string
	Source, Target Place
	// Closed: it is being taken back, and its target is not given the VM any more.
	Closed bool
	// SourceEpoch is the owner epoch that is copied; SwappedEpoch the one under which the
	// target owns the VM, 0 while it does not.
	SourceEpoch, SwappedEpoch gen.OwnerEpoch
	// HeldDiskBytes are taken, of a node that does not have the VM, yet or any more; of a
	// live one processors and memory, too.
	HeldDiskBytes   int64
	HeldCPUs        int
	HeldMemoryBytes int64
	// Options of one whose guest executes, complete. CutoverAt is when a warm one is to come to
	// its end; nil while nobody has said so. Priority is by what it waits for its turn.
	Options   Options
	CutoverAt *time.Time
	// Relayed: has a server carried it, because its nodes do not reach each other?
	Relayed  bool
	Priority int
	// Waits is what it waits for, its turn say; empty while it does not.
	Waits string
	// Share is what it was given last of what its nodes give to all migrations, in bytes per
	// second; 0 for no limit.
	Share int64
	// BegunAt is when its turn came; nil while it waits for that.
	BegunAt *time.Time
	// BytesMoved went from node to node.
	BytesMoved int64
	Predicted  Prediction
	// Progress and Downtime are of a live one.
	Progress Progress
	Downtime Downtime
	// Escalations are what was done where it stalled.
	Escalations []Escalation
	Phases      []Phase
	// Failure is why it failed; nil unless it did.
	Failure    *errs.Error
	CreatedBy  string
	CreatedAt  time.Time
	FinishedAt *time.Time
	Revision   gen.Revision
}

// Place is a node.
type Place struct {
	Node id.ID
	Name string
}

// Phase is when a part of it began.
type Phase struct {
	Name string
	At   time.Time
}
