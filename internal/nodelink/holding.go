package nodelink

import (
	"time"

	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ListHoldings asks what the node holds of VMs, in the order of their ids: what
// its own record and its host say, whatever a database knows.
type ListHoldings struct {
	// After is the last VM of the page before; zero for the first page.
	After id.ID `json:"after"`
	Limit int   `json:"limit"`
}

// Method implements Command.
func (*ListHoldings) Method() string { return "list_holdings" }

// HoldingsReply is one page.
type HoldingsReply struct {
	Items []Holding `json:"items"`
	More  bool      `json:"more,omitempty"`
	// Volumes are all the node has, whoever they belong to; in the first page.
	Volumes []HeldVolume `json:"volumes,omitempty"`
}

// Holding is what a node holds of one VM.
type Holding struct {
	VM         id.ID          `json:"vm"`
	OwnerEpoch gen.OwnerEpoch `json:"owner_epoch"`
	Operation  id.ID          `json:"operation"`
	OpSeq      int64          `json:"op_seq"`
	Attempt    int64          `json:"attempt"`
	PowerOn    bool           `json:"power_on"`
	// Erased: nothing is left but the fence.
	Erased bool `json:"erased,omitempty"`
	// Machine is what it was launched as last; absent when it never was.
	Machine *Machine `json:"machine,omitempty"`
	// Bases are the images its volumes stand on, by volume.
	Bases map[id.ID]ImageFile `json:"bases,omitempty"`
	// Volumes were made for it by this node; older records do not tell.
	Volumes []id.ID `json:"volumes,omitempty"`
	// Report is the newest observation; absent when there is none.
	Report *Report `json:"report,omitempty"`
	// RecordedAt is when the node wrote the record last, by its clock, for display.
	RecordedAt time.Time `json:"recorded_at"`
}

// HeldVolume is a volume that is there.
type HeldVolume struct {
	ID        id.ID `json:"id"`
	SizeBytes int64 `json:"size_bytes"`
	// Pool is the storage pool that it is in; absent for the node's own.
	Pool id.ID `json:"pool,omitzero"`
}
