package qemu

import (
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Names of the driver's own records; the keeper's are in its package.
const (
	machineFile = "machine.json"
	askedFile   = "asked.json"
	endFile     = "end.json"
	limitsFile  = "limits.json"
	landingFile = "landing.json"
)

// machineRecord is machine.json: what a launch set out to start.
type machineRecord struct {
	Machine contract.Machine `json:"machine"`
	// UID the guest's process has; 0 for the agent's own.
	UID int `json:"uid,omitempty"`
	// Group is the name of its cgroup; in records of earlier versions it is empty,
	// and the group has the VM's id for a name.
	Group string `json:"group,omitempty"`
	// Type and Accel are what QEMU was told, for those who look later.
	Type  string `json:"type"`
	Accel string `json:"accel"`
	CPU   string `json:"cpu,omitempty"`
	// Code is the image of its UEFI firmware.
	Code string `json:"code,omitempty"`
	// Agent: is there a line to an agent in the guest?
	Agent bool `json:"agent,omitempty"`
	// Layout is the set of devices that its program gave machines; see layout.go.
	Layout int `json:"layout,omitempty"`
	// Landing is where its memory was to come to, from another host; nil for none.
	Landing *contract.Landing `json:"landing,omitempty"`
	// At is wall time.
	At time.Time `json:"at"`
}

// group names the cgroup of the VM that the record is about.
func (r machineRecord) group(v id.ID) string {
	if r.Group != "" {
		return r.Group
	}
	return v.String()
}

// askedRecord is asked.json: what was asked of an incarnation.
type askedRecord struct {
	Shutdown bool `json:"shutdown,omitempty"`
	Kill     bool `json:"kill,omitempty"`
	// Failed is why the driver itself ended a guest that could not go on.
	Failed string `json:"failed,omitempty"`
	// Suspend is the suspend under way; nil for none.
	Suspend *suspendRecord `json:"suspend,omitempty"`
	// Send is the move to another host, and Landing how far one from another host has
	// come; see landingWaits.
	Send    *sendRecord `json:"send,omitempty"`
	Landing string      `json:"landing,omitempty"`
}

// limitsRecord is limits.json: what a guest was limited to after its launch.
type limitsRecord struct {
	Limits contract.Limits `json:"limits"`
	// Settled: is all of it in force?
	Settled bool `json:"settled,omitempty"`
}

// endRecord is end.json: how an incarnation ended, judged once.
type endRecord struct {
	Epoch  gen.OwnerEpoch `json:"epoch"`
	Phase  vm.Phase       `json:"phase"`
	Reason string         `json:"reason"`
	Since  time.Time      `json:"since"`
}
