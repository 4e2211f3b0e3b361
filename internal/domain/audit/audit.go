// Package audit holds who did, or tried, what.
package audit

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/id"
)

// Outcome is what became of an attempt.
type Outcome string

// The outcomes.
const (
	Accepted Outcome = "accepted"
	Denied   Outcome = "denied"
)

// Record is one attempt at a change. Every change has exactly one, written in
// the transaction that makes it.
type Record struct {
	Seq        int64 // 0 until the sequencer has numbered and chained it
	At         time.Time
	Principal  string
	Role       string
	Origin     string // "socket", or the peer's address
	Action     string // "vm.create"
	ObjectKind string
	ObjectID   *id.ID
	ObjectName string
	ProjectID  *id.ID
	JobID      *id.ID
	Outcome    Outcome
	RequestID  string
	Detail     map[string]any
}
