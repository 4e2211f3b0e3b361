package api

import "time"

// VMMigrate asks to move a VM to another node.
type VMMigrate struct {
	// Node to move to, by its name or id; absent for whichever suits best.
	Node string `json:"node,omitempty"`
	// Reason is kept with the record; up to 500 bytes.
	Reason string `json:"reason,omitempty"`
}

// VMMigrateResult answers a request to move a VM: the job that moves it, or, of a dry
// run, what would be done.
type VMMigrateResult struct {
	Job  *Job           `json:"job,omitempty"`
	Plan *MigrationPlan `json:"plan,omitempty"`
}

// MigrationPlan is where a VM would go, and what that takes.
type MigrationPlan struct {
	// Type is cold: nothing executes, and everything is copied.
	Type   string `json:"type"`
	Source string `json:"source"`
	// Target is the node that it would go to; empty when none suits.
	Target string `json:"target,omitempty"`
	// Candidates are the nodes that suit, best first.
	Candidates []MigrationCandidate `json:"candidates"`
	// Rejected are the others, each with every reason.
	Rejected []RejectedNode `json:"rejected,omitempty"`
	// Bytes would be moved, at most.
	Bytes Bytes `json:"bytes"`
	// Notes say what is another for the VM afterwards, or lost.
	Notes []string `json:"notes,omitempty"`
}

// MigrationCandidate is a node that a VM may move to.
type MigrationCandidate struct {
	Node string `json:"node"`
	// Score is what it is preferred by: higher is better.
	Score float64 `json:"score"`
}

// RejectedNode is a node that does not suit.
type RejectedNode struct {
	Node    string   `json:"node"`
	Reasons []string `json:"reasons"`
}

// Migration is the record of one: of a VM's way from one node to another.
type Migration struct {
	Kind string `json:"kind"` // "migration"
	// ID is its job's.
	ID string    `json:"id"`
	VM JobTarget `json:"vm"`
	// Type is cold.
	Type string `json:"type"`
	// State is running, succeeded, failed or cancelled.
	State string `json:"state"`
	// Reason is why, in the words of who asked.
	Reason string `json:"reason,omitempty"`
	Source string `json:"source"`
	Target string `json:"target"`
	// OwnerEpoch is under which the target owns the VM; absent while it does not.
	OwnerEpoch int64 `json:"owner_epoch,omitempty"`
	// PredictedBytes were expected, at most; BytesMoved went from node to node.
	PredictedBytes Bytes `json:"predicted_bytes"`
	BytesMoved     Bytes `json:"bytes_moved"`
	// Phases are when each part of it began.
	Phases     []MigrationPhase `json:"phases"`
	Error      *JobError        `json:"error,omitempty"`
	CreatedBy  string           `json:"created_by"`
	Revision   int64            `json:"revision"`
	CreatedAt  time.Time        `json:"created_at"`
	FinishedAt *time.Time       `json:"finished_at,omitempty"`
}

// MigrationPhase is when a part of a migration began.
type MigrationPhase struct {
	// Name is accepted, copying, swapped, cleaning, or swapped back.
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}
