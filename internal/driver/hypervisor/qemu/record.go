package qemu

import (
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/gen"
)

// Names of the driver's own records; the keeper's are in its package.
const (
	machineFile = "machine.json"
	askedFile   = "asked.json"
	endFile     = "end.json"
)

// machineRecord is machine.json: what a launch set out to start.
type machineRecord struct {
	Machine contract.Machine `json:"machine"`
	// UID the guest's process has; 0 for the agent's own.
	UID int `json:"uid,omitempty"`
	// Type and Accel are what QEMU was told, for those who look later.
	Type  string `json:"type"`
	Accel string `json:"accel"`
	// At is wall time.
	At time.Time `json:"at"`
}

// askedRecord is asked.json: what was asked of an incarnation.
type askedRecord struct {
	Shutdown bool `json:"shutdown,omitempty"`
	Kill     bool `json:"kill,omitempty"`
}

// endRecord is end.json: how an incarnation ended, judged once.
type endRecord struct {
	Epoch  gen.OwnerEpoch `json:"epoch"`
	Phase  vm.Phase       `json:"phase"`
	Reason string         `json:"reason"`
	Since  time.Time      `json:"since"`
}
