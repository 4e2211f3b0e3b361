package api

import "time"

// Recovery is what is held because the database knows less than the nodes, and
// what is done about it when it is confirmed.
type Recovery struct {
	// Held: is anything?
	Held bool `json:"held"`
	// Cause of the hold of the whole cluster is restored or nodes; absent when only
	// nodes are held by themselves.
	Cause  string     `json:"cause,omitempty"`
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	// RestoredAt is when a database was put back last, BackupOf when that was saved.
	RestoredAt *time.Time `json:"restored_at,omitempty"`
	BackupOf   *time.Time `json:"backup_of,omitempty"`
	// Plan names what differs: it is confirmed as it was shown, or not at all.
	Plan  string         `json:"plan,omitempty"`
	Nodes []RecoveryNode `json:"nodes"`
	VMs   []RecoveryVM   `json:"vms"`
	Jobs  []RecoveryJob  `json:"jobs"`
	// Images are made anew for VMs whose image the database does not have.
	Images []string `json:"images"`
	// Left are VMs that nodes have, and that somebody decided to leave alone.
	Left []RecoveryLeft `json:"left"`
	// Confirmed is the plan that was carried out last.
	Confirmed   string     `json:"confirmed,omitempty"`
	ConfirmedBy string     `json:"confirmed_by,omitempty"`
	ConfirmedAt *time.Time `json:"confirmed_at,omitempty"`
}

// RecoveryNode is a held node.
type RecoveryNode struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// State is compared, or away: then it stays held when the plan is confirmed.
	State string `json:"state"`
	// Reason it is held by itself; absent when the whole cluster is.
	Reason string `json:"reason,omitempty"`
}

// RecoveryVM is a VM that differs.
type RecoveryVM struct {
	// Case is changed (both know it, its node more), unknown (the database does not
	// have it), missing (its node does not have it) or elsewhere (a node has it that
	// is not its own).
	Case string `json:"case"`
	ID   string `json:"id"`
	Name string `json:"name"`
	Node string `json:"node"`
	// Phase is what its node saw of it last: running, exited and so on.
	Phase string `json:"phase,omitempty"`
	// RecordedAt is when its node last wrote down anything of it.
	RecordedAt  *time.Time `json:"recorded_at,omitempty"`
	Differences []string   `json:"differences"`
	// Action is adopt, lose (it becomes failed, and can be deleted) or leave.
	Action string `json:"action"`
	// As is the name it gets, where its own is taken.
	As string `json:"as,omitempty"`
	// Why it can only be left.
	Why string `json:"why,omitempty"`
}

// RecoveryJob is a job that had not ended in the older database.
type RecoveryJob struct {
	ID     string    `json:"id"`
	Type   string    `json:"type"`
	Target JobTarget `json:"target"`
	// Action is go_on or end.
	Action string `json:"action"`
	Why    string `json:"why,omitempty"`
}

// RecoveryLeft is a VM that was left alone on its node.
type RecoveryLeft struct {
	VM   string    `json:"vm"`
	Node string    `json:"node"`
	Name string    `json:"name"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// RecoveryConfirm carries out the plan that was shown.
type RecoveryConfirm struct {
	Plan string `json:"plan"`
	// Adopt and Leave decide about unknown VMs, by id; without a word they are
	// adopted, unless they were left before.
	Adopt []string `json:"adopt,omitempty"`
	Leave []string `json:"leave,omitempty"`
}
