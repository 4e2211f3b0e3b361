package api

import "time"

// VMMigrate asks to move a VM to another node.
type VMMigrate struct {
	// Node to move to, by its name or id; absent for whichever suits best.
	Node string `json:"node,omitempty"`
	// Reason is kept with the record; up to 500 bytes.
	Reason string `json:"reason,omitempty"`
	// Kind is live, warm or cold; absent for whichever suits: live for a VM that runs or is
	// paused, cold for one without a process. Warm copies the disks of one that runs ahead, in
	// rounds, and halts it once, when it is told to.
	Kind string `json:"kind,omitempty"`
	// Profile names options, which those that are given come before: wan, for nodes with a
	// slow network between them.
	Profile string `json:"profile,omitempty"`
	// Options are of a live migration.
	Options *MigrationOptions `json:"options,omitempty"`
	// Priority, -100 to 100: of those that wait for their turn, the higher go first.
	Priority int `json:"priority,omitempty"`
}

// MigrationOptions say how a VM that runs is moved. What is absent is a good default.
type MigrationOptions struct {
	// BytesPerSecond bounds the rate of its memory, and that of its disks.
	BytesPerSecond Bytes `json:"bytes_per_second,omitempty"`
	// DowntimeMS is for how long its guest may be halted at the end: 300.
	DowntimeMS int64 `json:"downtime_ms,omitempty"`
	// MaxDowntimeMS is for how long it may be halted when it does not come to its end
	// otherwise: 1000.
	MaxDowntimeMS int64 `json:"max_downtime_ms,omitempty"`
	// OnStall is what is done, in this order, when memory does not come nearer to its end:
	// throttle (its processors are slowed down, more and more), downtime (it may be halted
	// for longer, up to max_downtime_ms), give_up (it goes on where it is); or wait, alone.
	// Absent: throttle and downtime.
	OnStall []string `json:"on_stall,omitempty"`
	// AutoConverge slows its processors down from the beginning, while it changes memory
	// faster than that is sent.
	AutoConverge bool `json:"auto_converge,omitempty"`
	// Compression of memory: zstd.
	Compression string `json:"compression,omitempty"`
	// Channels are so many connections at once for memory: 2.
	Channels int `json:"channels,omitempty"`
	// PatienceSeconds is how long the end may take before the guest goes on where it was: 30.
	PatienceSeconds int64 `json:"patience_seconds,omitempty"`
	// TimeoutSeconds is how long it may take until the end begins.
	TimeoutSeconds int64 `json:"timeout_seconds,omitempty"`
	// Cutover is when a warm one comes to its end: auto, as soon as the last round is expected
	// to be short; or manual, when POST /vms/{vm}/migrate/cutover says so.
	Cutover string `json:"cutover,omitempty"`
	// CutoverAt is when that is, where it is known already.
	CutoverAt *time.Time `json:"cutover_at,omitempty"`
	// IntervalSeconds is how long a warm one rests between two rounds: 30.
	IntervalSeconds int64 `json:"interval_seconds,omitempty"`
}

// VMCutover has a warm migration come to its end.
type VMCutover struct {
	// At is when; absent for now, once the disks have been copied.
	At *time.Time `json:"at,omitempty"`
}

// VMMigrateResult answers a request to move a VM: the job that moves it, or, of a dry
// run, what would be done.
type VMMigrateResult struct {
	Job  *Job           `json:"job,omitempty"`
	Plan *MigrationPlan `json:"plan,omitempty"`
}

// MigrationPlan is where a VM would go, and what that takes.
type MigrationPlan struct {
	// Type is cold: nothing executes, and everything is copied; or live: the guest executes
	// meanwhile, and is halted for a moment at the end; or warm: its disks are copied ahead, in
	// rounds, and it is halted once for the rest.
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
	// Disks of the VM, each with what becomes of it.
	Disks []MigrationDisk `json:"disks,omitempty"`
	// Predicted is what it is expected to take.
	Predicted MigrationPrediction `json:"predicted"`
	// Options of a live one, complete.
	Options *MigrationOptions `json:"options,omitempty"`
	// Reach is how the two nodes speak with each other, which was just tried: direct, or
	// relayed by a server, which is slower; absent when it could not be tried.
	Reach string `json:"reach,omitempty"`
	// Notes say what is another for the VM afterwards, or lost.
	Notes []string `json:"notes,omitempty"`
}

// MigrationPrediction is what a migration is expected to take.
type MigrationPrediction struct {
	// Bytes to move, at most; of a live one without what changes meanwhile.
	Bytes Bytes `json:"bytes"`
	// BytesPerSecond are what the rest assumes, and Assumption says why.
	BytesPerSecond Bytes  `json:"bytes_per_second,omitempty"`
	Assumption     string `json:"assumption,omitempty"`
	// Seconds it takes; of a live one at least so many, unless it converges.
	Seconds float64 `json:"seconds,omitempty"`
	// DowntimeMS is for how long the guest does not execute.
	DowntimeMS int64 `json:"downtime_ms,omitempty"`
	// DirtyBytesPerSecond is how fast the guest changes memory, and DirtyFrom who says so:
	// sampled (it was looked at for a second, SampledAt), or last_move (it did when it was
	// moved last); absent when nobody knows.
	DirtyBytesPerSecond Bytes      `json:"dirty_bytes_per_second,omitempty"`
	DirtyFrom           string     `json:"dirty_from,omitempty"`
	SampledAt           *time.Time `json:"sampled_at,omitempty"`
	// Converges tells whether a live one comes to its end by itself: yes, no, slowed (its
	// guest is slowed down until it does), or unknown.
	Converges string `json:"converges,omitempty"`
}

// MigrationProgress is how far a live migration is, in bytes and bytes per second.
type MigrationProgress struct {
	// What changes is sent again, so that more may be moved than there is.
	MemoryMoved     Bytes `json:"memory_moved"`
	MemoryRemaining Bytes `json:"memory_remaining"`
	DisksMoved      Bytes `json:"disks_moved"`
	DisksRemaining  Bytes `json:"disks_remaining"`
	// BytesPerSecond at which memory moves, and at which the guest changes it.
	BytesPerSecond      Bytes `json:"bytes_per_second"`
	DirtyBytesPerSecond Bytes `json:"dirty_bytes_per_second"`
	// ExpectedDowntimeMS is how long the guest would be halted if it were now.
	ExpectedDowntimeMS int64 `json:"expected_downtime_ms"`
	// ThrottlePercent of the time its processors are kept from executing.
	ThrottlePercent int `json:"throttle_percent,omitempty"`
	// Warm is of a warm one.
	Warm *MigrationWarmth `json:"warm,omitempty"`
}

// MigrationWarmth is how far the rounds of a warm migration are.
type MigrationWarmth struct {
	// Rounds that have come to their end; LastBytes and LastSeconds are what the last of them
	// took.
	Rounds      int64   `json:"rounds"`
	LastBytes   Bytes   `json:"last_bytes"`
	LastSeconds float64 `json:"last_seconds"`
	// ChangedBytes of the disks have changed since then.
	ChangedBytes Bytes `json:"changed_bytes"`
	// Cut: the target cannot be reached from the source now; Cuts is how often it could not.
	Cut  bool  `json:"cut,omitempty"`
	Cuts int64 `json:"cuts,omitempty"`
}

// MigrationStep is what was done because a live migration did not come nearer to its end.
type MigrationStep struct {
	// Step is throttle, downtime, give_up, or wait where nothing was left to try; of a warm one
	// anew: what was copied is lost, and is copied again.
	Step string `json:"step"`
	// Stall is outrun: the guest changes memory as fast as it is sent; or silent: nothing is
	// sent.
	Stall string `json:"stall"`
	// Reason is what was seen.
	Reason string `json:"reason"`
	// ThrottlePercent and DowntimeMS are what it was given from then on.
	ThrottlePercent int       `json:"throttle_percent,omitempty"`
	DowntimeMS      int64     `json:"downtime_ms,omitempty"`
	At              time.Time `json:"at"`
}

// MigrationDisk is a disk of a VM that is to move.
type MigrationDisk struct {
	Slot      int   `json:"slot"`
	SizeBytes Bytes `json:"size_bytes"`
	// Action is moves: it is copied to the target; or stays: it is in a storage pool that the
	// target has, too.
	Action string `json:"action"`
	// Pool that it is in, if it is in one.
	Pool string `json:"pool,omitempty"`
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
	// Type is cold, live or warm.
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
	// Predicted is what it was expected to take.
	Predicted MigrationPrediction `json:"predicted"`
	// Options and Progress are of a live or a warm one.
	Options  *MigrationOptions  `json:"options,omitempty"`
	Progress *MigrationProgress `json:"progress,omitempty"`
	// Relayed: a server has carried it, because its nodes do not reach each other.
	Relayed bool `json:"relayed,omitempty"`
	// DowntimeMS is for how long the guest was halted, as its hypervisor tells, and
	// DowntimeSeenMS as the control plane saw it: from before its halt until it ran again.
	DowntimeMS     int64 `json:"downtime_ms,omitempty"`
	DowntimeSeenMS int64 `json:"downtime_seen_ms,omitempty"`
	// WaitReason is what it waits for, its turn say; absent while it does not.
	WaitReason string `json:"wait_reason,omitempty"`
	// ShareBytesPerSecond is what it was given last of what its nodes give to all of their
	// migrations; absent where they do not limit them.
	ShareBytesPerSecond Bytes `json:"share_bytes_per_second,omitempty"`
	// CutoverAt is when a warm one was, or is, to come to its end; absent while nobody has said.
	CutoverAt *time.Time `json:"cutover_at,omitempty"`
	// Priority is by what it waits for its turn, and BegunAt when that came.
	Priority int        `json:"priority,omitempty"`
	BegunAt  *time.Time `json:"begun_at,omitempty"`
	// Steps are what was done because it stalled.
	Steps []MigrationStep `json:"steps,omitempty"`
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
	// Name is accepted, copying, swapped, cleaning, or swapped back; of a live one accepted,
	// disks, memory, switchover, sent, swapped, resumed or cleaning; a warm one has warm in place
	// of disks and memory.
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}
