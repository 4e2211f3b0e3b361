package nodelink

import (
	"net/netip"
	"slices"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// GuestNote is what of a guest goes with its VM's report.
type GuestNote struct {
	// Addresses of vm.KeptAddresses, in text.
	Addresses []string `json:"addresses,omitempty"`
	// Frozen: its file systems are; nil for not.
	Frozen *FrozenNote `json:"frozen,omitempty"`
}

// FrozenNote is vm.Frozen on the wire.
type FrozenNote struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason,omitempty"`
}

// Equal tells whether two notes say the same; a nil one says nothing.
func (n *GuestNote) Equal(o *GuestNote) bool {
	if n == nil || o == nil {
		return n.empty() && o.empty()
	}
	return slices.Equal(n.Addresses, o.Addresses) && (n.Frozen == nil) == (o.Frozen == nil) &&
		(n.Frozen == nil || *n.Frozen == *o.Frozen)
}

func (n *GuestNote) empty() bool { return n == nil || (len(n.Addresses) == 0 && n.Frozen == nil) }

// Kept gives what of a report's note may be kept: nothing of a guest that is not there,
// and of a node's words what can be addresses.
func (r Report) Kept() (addresses []netip.Addr, frozen *vm.Frozen) {
	if r.Guest == nil || !r.Phase.OnNode() {
		return nil, nil
	}
	for _, s := range r.Guest.Addresses[:min(len(r.Guest.Addresses), vm.MostAddresses)] {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			addresses = append(addresses, a)
		}
	}
	if f := r.Guest.Frozen; f != nil && !f.Until.IsZero() {
		frozen = &vm.Frozen{Until: f.Until, Reason: Text(f.Reason)}
	}
	return addresses, frozen
}

// FreezeGuest has a guest's file systems frozen, and thawed after a time.
type FreezeGuest struct {
	VM    id.ID          `json:"vm"`
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
	// TimeMS is for how long, in milliseconds from arrival.
	TimeMS int64 `json:"time_ms"`
}

// Method implements Command.
func (*FreezeGuest) Method() string { return "freeze_guest" }

// FreezeReply answers FreezeGuest.
type FreezeReply struct {
	FileSystems int       `json:"file_systems"`
	Until       time.Time `json:"until"`
}

// ThawGuest has a guest's file systems thawed; none that is frozen is no error.
type ThawGuest struct {
	VM    id.ID          `json:"vm"`
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
}

// Method implements Command.
func (*ThawGuest) Method() string { return "thaw_guest" }
