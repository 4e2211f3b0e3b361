package vm

import (
	"net/netip"
	"slices"
	"time"
)

// MostAddresses of a guest are kept.
const MostAddresses = 16

// KeptAddresses gives those addresses of a guest that others may reach it at, each once:
// own, of the interfaces that its VM has, before others, of what it made by itself, each
// IPv4 first and in their order. The order is not the guest's: one that tells the same
// in another order has told nothing new.
func KeptAddresses(own, others []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, told := range [][]netip.Addr{own, others} {
		part := make([]netip.Addr, 0, len(told))
		for _, a := range told {
			if a = a.Unmap().WithZone(""); a.IsGlobalUnicast() {
				part = append(part, a)
			}
		}
		slices.SortFunc(part, netip.Addr.Compare) // IPv4 is less than IPv6
		for _, a := range slices.Compact(part) {
			if len(out) < MostAddresses && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// Frozen says that a guest's file systems are frozen.
type Frozen struct {
	// Until is when they are thawed at the latest, by the wall clock of the VM's node.
	Until time.Time
	// Reason says why they were not, after that.
	Reason string
}

// Bounds of a freeze.
const (
	MaxFreeze = time.Minute
	// FreezeTime is how long one lasts of which nothing is said.
	FreezeTime = 10 * time.Second
)

// ValidateFreeze refuses times that nothing is frozen for: while it is, everything in
// the guest that writes waits.
func ValidateFreeze(t time.Duration) error {
	v := validation{}
	v.between("/seconds", int64(t/time.Second), 1, int64(MaxFreeze/time.Second), plain)
	return v.err()
}
