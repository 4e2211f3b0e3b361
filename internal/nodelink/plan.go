package nodelink

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/novacron/novacron/internal/vocab/id"
)

// HostPlan is what a node does by itself when its host starts and shuts down. It
// replaces the one before; one with a lower number comes late, and is refused.
type HostPlan struct {
	Cluster id.ID `json:"cluster"`
	Seq     int64 `json:"seq"`
	// Shutdown is what becomes of guests when the host shuts down in order: stop,
	// suspend or leave.
	Shutdown string `json:"shutdown"`
	// VMs are those that are not as all others, which are started at once, if they ran.
	VMs []StartPlan `json:"vms"`
}

// Method implements Command.
func (*HostPlan) Method() string { return "host_plan" }

// StartPlan is a VM's place in what a host that starts brings up.
type StartPlan struct {
	VM id.ID `json:"vm"`
	// ByHand: it is not started with the host.
	ByHand bool `json:"by_hand,omitempty"`
	// Order is its place, lower ones first; DelaySeconds is how long the node then waits
	// before the next place.
	Order        int   `json:"order,omitempty"`
	DelaySeconds int64 `json:"delay_seconds,omitempty"`
}

// Digest tells plans of different content apart; it does not look at cluster and
// number.
func (p *HostPlan) Digest() string {
	b, err := json.Marshal(HostPlan{Shutdown: p.Shutdown, VMs: append([]StartPlan{}, p.VMs...)})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
