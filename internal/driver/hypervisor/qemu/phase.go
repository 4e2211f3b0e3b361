package qemu

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
)

// phaseOf translates QEMU's run state (RunState of its schema).
func phaseOf(runState string, pressed bool) (vm.Phase, string) {
	switch runState {
	case "prelaunch", "inmigrate":
		return vm.PhaseStarting, ""
	case "running":
		if pressed {
			return vm.PhaseStopping, ""
		}
		return vm.PhaseRunning, ""
	case "suspended": // ACPI sleep, which our machines do not offer
		return vm.PhaseRunning, "the guest sleeps"
	case "shutdown":
		return vm.PhaseStopping, ""
	case "io-error":
		return vm.PhasePaused, "i/o error on a disk"
	case "internal-error":
		return vm.PhasePaused, "the hypervisor stopped the guest: internal error"
	case "guest-panicked":
		return vm.PhasePaused, panicked
	case "watchdog":
		return vm.PhasePaused, "the guest's watchdog expired"
	}
	return vm.PhasePaused, ""
}

// phaseOfMove is what a phase is for a guest that moves between hosts. It is called with
// g.mu held.
func (g *guest) phaseOfMove(p vm.Phase, reason string) (vm.Phase, string) {
	switch {
	case g.awaits() && (p == vm.PhaseStarting || p == vm.PhasePaused):
		return vm.PhaseIncoming, ""
	case p == vm.PhasePaused && g.asked.Send != nil && g.asked.Send.Sent:
		return p, contract.SentAway
	}
	return p, reason
}

// killedBySignal finds what QEMU says when it obeys a signal, with exit code 0.
var killedBySignal = regexp.MustCompile(`terminating on signal (\d+)`)

// endOf judges how an incarnation ended: what was asked, and what the keeper saw,
// which is nil if nobody watched.
func endOf(asked askedRecord, e *keeper.Exit) (vm.Phase, string) {
	switch {
	case asked.Kill:
		return vm.PhaseExited, "killed on request"
	case asked.Failed != "":
		return vm.PhaseCrashed, asked.Failed
	case e == nil:
		return vm.PhaseCrashed, "ended while nobody watched"
	case e.Signal != 0:
		return vm.PhaseCrashed, fmt.Sprintf("killed by signal %d", e.Signal)
	case e.Code != 0:
		return vm.PhaseCrashed, fmt.Sprintf("the hypervisor ended with exit code %d", e.Code)
	}
	if m := killedBySignal.FindStringSubmatch(e.Said); m != nil {
		return vm.PhaseCrashed, "the hypervisor was told to end by signal " + m[1]
	}
	if asked.Shutdown {
		return vm.PhaseExited, "guest shut down on request"
	}
	return vm.PhaseExited, "guest powered off"
}

// diskTrouble words an I/O error; the node is a disk's name or one of its layers.
func diskTrouble(node string, nospace bool) string {
	disk, _, _ := strings.Cut(node, "-")
	if disk == "" {
		disk = "a guest's disk"
	}
	if nospace {
		return "no space left for disk " + disk
	}
	return "i/o error on disk " + disk
}
