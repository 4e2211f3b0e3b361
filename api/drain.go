package api

import "time"

// NodeDrain asks to cordon a node and to empty it of its VMs.
type NodeDrain struct {
	// Policy stands before what the VMs have: live, cold, stop or refuse; absent for each
	// VM's own.
	Policy string `json:"policy,omitempty"`
	// Parallel is how many VMs are worked on at a time, 1 to 32; 2 when absent.
	Parallel int `json:"parallel,omitempty"`
	// GraceSeconds is how long a guest may take to shut down, 0 to 3600; 60 when absent.
	GraceSeconds *int64 `json:"grace_seconds,omitempty"`
	// Partial: is what can be done to be done, where VMs stand against it? Otherwise that
	// is refused, with what they are.
	Partial bool `json:"partial,omitempty"`
	// Reason is kept with the record; up to 500 bytes.
	Reason string `json:"reason,omitempty"`
}

// NodeReturn asks to give a node new VMs again.
type NodeReturn struct {
	// VMs: is it to get back, too, what drains took from it since it got back anything
	// last? What was moved or started otherwise since stays as it is.
	VMs bool `json:"vms,omitempty"`
	// Policy is by what VMs move: live or cold; absent for each VM's own.
	Policy string `json:"policy,omitempty"`
	// Parallel is how many VMs are worked on at a time, 1 to 32; 2 when absent.
	Parallel int `json:"parallel,omitempty"`
	// GraceSeconds is how long a guest may take to shut down, 0 to 3600; 60 when absent.
	GraceSeconds *int64 `json:"grace_seconds,omitempty"`
	// Reason is kept with the record; up to 500 bytes.
	Reason string `json:"reason,omitempty"`
}

// NodeDrainResult answers such a request: the job, if there is something to do; or, of a
// dry run, what would be done.
type NodeDrainResult struct {
	Job  *Job       `json:"job,omitempty"`
	Plan *DrainPlan `json:"plan,omitempty"`
}

// DrainPlan says what would become of each VM, in the order in which it would be done.
type DrainPlan struct {
	Node string    `json:"node"`
	VMs  []DrainVM `json:"vms"`
	// Blocked names those that stand against it.
	Blocked []string `json:"blocked,omitempty"`
}

// DrainVM is what becomes of one VM.
type DrainVM struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Action is live, cold, stop, start, leave (nothing is to be done) or block (nothing
	// can be).
	Action string `json:"action"`
	// Target is where it goes, when it does.
	Target string `json:"target,omitempty"`
	// State is queued, running, done, failed or left.
	State string `json:"state"`
	// Stage is what is being done: stop, move, start, or start again where it was.
	Stage string `json:"stage,omitempty"`
	// Job is the VM's own, the newest of them.
	Job string `json:"job,omitempty"`
	// Reason is why, of what is blocked, left, failed or waits.
	Reason     string     `json:"reason,omitempty"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

// Drain is the record of a drain of a node, or of a return to it.
type Drain struct {
	Kind string `json:"kind"` // "drain"
	// ID is its job's.
	ID string `json:"id"`
	// Type is drain or return.
	Type string `json:"type"`
	Node string `json:"node"`
	// State is running, succeeded, failed or cancelled.
	State    string `json:"state"`
	Policy   string `json:"policy,omitempty"`
	Parallel int    `json:"parallel"`
	Partial  bool   `json:"partial,omitempty"`
	// Reason is why, in the words of who asked.
	Reason     string     `json:"reason,omitempty"`
	VMs        []DrainVM  `json:"vms"`
	CreatedBy  string     `json:"created_by"`
	CreatedAt  time.Time  `json:"created_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}
