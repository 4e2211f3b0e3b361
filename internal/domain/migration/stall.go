package migration

import "time"

// Sample is what was seen of a guest's memory on its way, at one moment.
type Sample struct {
	// At is by a clock that only goes on.
	At time.Duration
	// Round counts how often the hypervisor has begun to send what had changed, the first
	// being all there is.
	Round int64
	// Moved went so far, and Remaining has to go still, in bytes.
	Moved, Remaining int64
}

// Stall is why memory on its way does not come to its end.
type Stall string

// The stalls.
const (
	// NotStalled: it comes nearer to its end, or nobody can tell yet.
	NotStalled Stall = ""
	// Outrun: bytes flow, and the guest changes memory as fast as they do.
	Outrun Stall = "outrun"
	// Silent: no byte flows.
	Silent Stall = "silent"
)

// StallWindow is how long memory on its way is watched before it is said to stall.
const StallWindow = 10 * time.Second

// Stalled judges what was seen, oldest first. Silent is what has not moved a byte for the
// window. Outrun is what has as much to send in the rounds that began in the later half of
// the window, but for a twentieth, as in those of the half before it: within a round what
// is left falls in any case. Each half is as long as it takes for a round to begin in it.
func Stalled(seen []Sample, window time.Duration) Stall {
	last := len(seen) - 1
	switch {
	case last < 0 || seen[last].Remaining <= 0:
		return NotStalled
	case silentFor(seen) >= window:
		return Silent
	}
	late := halfBefore(seen, last, window/2)
	early := halfBefore(seen, late, window/2)
	if early < 0 || seen[last].Moved == seen[early].Moved {
		return NotStalled
	}
	was, is := largest(seen[early:late+1]), largest(seen[late:])
	if is > 0 && is*20 > was*19 {
		return Outrun
	}
	return NotStalled
}

// silentFor is for how long nothing has moved.
func silentFor(seen []Sample) time.Duration {
	last := seen[len(seen)-1]
	since := last.At
	for i := len(seen) - 1; i >= 0 && seen[i].Moved == last.Moved; i-- {
		since = seen[i].At
	}
	return last.At - since
}

// halfBefore gives where a part of what was seen begins that ends at a sample, is as long
// as half, and in which a round begins; -1 where there is none.
func halfBefore(seen []Sample, end int, half time.Duration) int {
	for i := end - 1; i >= 0; i-- {
		if seen[end].At-seen[i].At >= half && seen[end].Round > seen[i].Round {
			return i
		}
	}
	return -1
}

// largest is how much the largest round had to send that began after the first sample.
func largest(seen []Sample) (n int64) {
	for _, s := range seen {
		if s.Round > seen[0].Round {
			n = max(n, s.Remaining)
		}
	}
	return n
}

// Watch remembers what Stalled needs of what was seen, however long that takes.
type Watch struct{ seen []Sample }

// maxSeen bounds what a Watch remembers: some hundred rounds.
const maxSeen = 1024

// Add takes the next sample.
func (w *Watch) Add(s Sample) {
	if n := len(w.seen); n >= 2 && between(w.seen[n-2], w.seen[n-1], s) {
		w.seen = w.seen[:n-1]
	}
	if len(w.seen) >= maxSeen {
		w.seen = append(w.seen[:0], w.seen[maxSeen/2:]...)
	}
	w.seen = append(w.seen, s)
}

// between tells whether b adds nothing to a and c.
func between(a, b, c Sample) bool {
	flows, still := a.Moved < b.Moved && b.Moved < c.Moved, a.Moved == b.Moved && b.Moved == c.Moved
	return a.Round == b.Round && b.Round == c.Round && (flows || still) && b.Remaining <= a.Remaining
}

// Stalled is Stalled of what was seen.
func (w *Watch) Stalled(window time.Duration) Stall { return Stalled(w.seen, window) }

// Forget begins anew, because something was changed.
func (w *Watch) Forget() { w.seen = nil }
