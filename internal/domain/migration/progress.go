package migration

import "time"

// Progress is how far a live migration is.
type Progress struct {
	// Phase that it is in, of those that are named here; empty for the one that it was in.
	Phase string
	// Of memory and of disks, in bytes. What changed goes again, so that more may be moved
	// than there is.
	MemoryMoved, MemoryRemaining int64
	DisksMoved, DisksRemaining   int64
	// Rate at which memory moves, and at which the guest changes it, in bytes per second.
	Rate, DirtyRate int64
	// ExpectedDowntime is how long the guest would be halted if it were now.
	ExpectedDowntime time.Duration
	// Throttle is the share of time, in percent, that the guest's processors are kept from
	// executing.
	Throttle int
	// Warm is of a warm one; nil of any other.
	Warm *Warmth
}

// Taken is an escalation as its node tells of it.
type Taken struct {
	Escalation
	// Key tells it from all others.
	Key string
	// Age is how long ago it was taken, in place of At.
	Age time.Duration
}

// Moved is what went from node to node, in bytes.
func (p Progress) Moved() int64 { return p.MemoryMoved + p.DisksMoved }

// Downtime is for how long a guest was halted: as the hypervisor that sent it tells, and
// as the control plane saw it, from before the halt to after the guest ran again. 0 where
// nobody knows.
type Downtime struct {
	Hypervisor, Seen time.Duration
}
