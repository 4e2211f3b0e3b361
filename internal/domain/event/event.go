// Package event holds what happened, in the one order every reader sees.
package event

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/id"
)

// Event is a change that was committed. Data is a small JSON document made when
// the change was; readers that need more read the object.
type Event struct {
	// Seq is the sequencer's number; readers resume after it.
	Seq        int64
	ProjectID  *id.ID
	Kind       string // "vm.updated", "job.updated", "node.updated", …
	ObjectKind string
	ObjectID   id.ID
	ObjectName string
	JobID      *id.ID
	Data       []byte
	At         time.Time
}
