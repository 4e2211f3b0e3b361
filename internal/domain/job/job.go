// Package job holds what users watch while a change takes time.
package job

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// State is how far a job is.
type State string

// The states of a job. Queued, running, waiting and unwinding go on by
// themselves; needs_attention waits for an operator and still holds its object.
const (
	Queued         State = "queued"
	Running        State = "running"
	Waiting        State = "waiting"
	Unwinding      State = "unwinding"
	Succeeded      State = "succeeded"
	Failed         State = "failed"
	Cancelled      State = "cancelled"
	NeedsAttention State = "needs_attention"
)

// States lists all states.
func States() []State {
	return []State{Queued, Running, Waiting, Unwinding, Succeeded, Failed, Cancelled, NeedsAttention}
}

// Ended tells whether nothing will happen to the job any more by itself.
func (s State) Ended() bool {
	switch s {
	case Succeeded, Failed, Cancelled, NeedsAttention:
		return true
	case Queued, Running, Waiting, Unwinding:
		return false
	}
	return false
}

// Job is a change under way, or its record.
type Job struct {
	ID              id.ID
	ProjectID       *id.ID
	Kind            string
	TargetKind      string
	TargetID        id.ID
	TargetName      string
	State           State
	OpSeq           int64
	WaitReason      string
	Cancellable     bool
	CancelRequested bool
	Progress        int // percent
	ErrorCode       string
	ErrorMessage    string
	CreatedBy       string
	Steps           []Step
	Revision        gen.Revision
	CreatedAt       time.Time
	StartedAt       *time.Time
	FinishedAt      *time.Time
}

// Step is one step of a job, as its journal has it.
type Step struct {
	Position   int
	Name       string
	State      string // running, done, failed, undoing, undone
	Error      string
	StartedAt  time.Time
	FinishedAt *time.Time
}
