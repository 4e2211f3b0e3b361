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
)

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
	PhaseCopying  = "copying"
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
	// SourceEpoch is the owner epoch that is copied; SwappedEpoch the one under which the
	// target owns the VM, 0 while it does not.
	SourceEpoch, SwappedEpoch gen.OwnerEpoch
	// HeldDiskBytes are taken, of a node that does not have the VM, yet or any more.
	HeldDiskBytes int64
	// BytesMoved went from node to node.
	BytesMoved int64
	Predicted  Prediction
	Phases     []Phase
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

// Prediction is what a plan expects.
type Prediction struct {
	// Bytes to move, at most.
	Bytes int64
}

// Request is what a person asks for.
type Request struct {
	// Node to move to, by its name or id; empty for whichever suits best.
	Node string
	// Reason is kept with the record.
	Reason string
}

// MaxReason bounds a reason, in bytes.
const MaxReason = 500

// Validate refuses what cannot be kept.
func (r Request) Validate() error {
	if len(r.Reason) > MaxReason {
		return errs.New(errs.TooLarge, "a reason has up to %d bytes", MaxReason).At(errs.Field{Pointer: "/reason", Message: "is too long", Limit: "500"})
	}
	return nil
}
