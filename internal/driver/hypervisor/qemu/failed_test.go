package qemu_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
)

// faultSector is a boot sector without an interrupt table that calls one: cli;
// lidt zeroes; int3. The processor gives up, and the board resets it.
var faultSector = append(append([]byte{
	0xfa, 0x2e, 0x0f, 0x01, 0x1e, 0x10, 0x7c, 0xcc,
}, make([]byte, 502)...), 0x55, 0xaa)

// A guest that does nothing but fault and reset is ended and counts as crashed,
// with the reason; an agent that was away meanwhile does not make a power-off of it.
func TestResetLoopEnds(t *testing.T) {
	seen := hypertest.NewRecorder()
	h := newHarness(t, seen.Sink)
	m := h.machine(t, faultSector)
	h.launch(t, m)
	s := seen.Await(t, m.VM, "the end of a guest that resets itself for ever", func(s contract.Status) bool { return !s.Phase.OnNode() })
	if s.Phase != vm.PhaseCrashed || !strings.Contains(s.Reason, "reset itself 10 times") {
		t.Errorf("%+v", s)
	}
	if s := h.adopt(t, nil); s.Phase != vm.PhaseCrashed || !strings.Contains(s.Reason, "reset itself 10 times") {
		t.Errorf("the next agent finds %+v", s)
	}
}
