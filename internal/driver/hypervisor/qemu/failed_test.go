package qemu_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// faultSector is a boot sector without an interrupt table that calls one: cli;
// lidt zeroes; int3. The processor gives up, and the board resets it.
var faultSector = append(append([]byte{
	0xfa, 0x2e, 0x0f, 0x01, 0x1e, 0x10, 0x7c, 0xcc,
}, make([]byte, 502)...), 0x55, 0xaa)

// panicSector is a boot sector that waits for 20 ticks of its clock, prints a dot, and
// tells by the pvpanic device that it gave up.
var panicSector = append(append([]byte{
	0xfb, 0x31, 0xc0, 0x8e, 0xd8, 0xa0, 0x6c, 0x04, 0x04, 0x14, 0x88, 0xc3, // sti; ds = 0; bl = the clock's low byte + 20
	0xf4, 0x3a, 0x1e, 0x6c, 0x04, 0x75, 0xf9, // hlt, until the clock says bl
	0xfa, 0xb0, 0x2e, 0xba, 0xf8, 0x03, 0xee, // cli; a dot to COM1
	0xb0, 0x01, 0xba, 0x05, 0x05, 0xee, 0xf4, 0xeb, 0xfd, // 1 to port 0x505; hlt for ever
}, make([]byte, 475)...), 0x55, 0xaa)

// A guest whose kernel tells that it gave up is ended and counts as crashed, with the
// reason, also where no agent was there to hear it.
func TestPanicEnds(t *testing.T) {
	for name, away := range map[string]bool{"Heard": false, "NobodyThere": true} {
		t.Run(name, func(t *testing.T) {
			seen := hypertest.NewRecorder()
			h := newHarness(t, seen.Sink)
			m := h.machine(t, panicSector)
			h.launch(t, m)
			if away {
				h.adopt(t, func() { h.prints(t, m, ".") })
			}
			s := seen.Await(t, m.VM, "its end", func(s contract.Status) bool { return !s.Phase.OnNode() })
			if s.Phase != vm.PhaseCrashed || s.Reason != "the guest's kernel panicked" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// prints waits until the keeper has logged something of a guest, with no driver open.
func (h *harness) prints(t *testing.T, m contract.Machine, want string) {
	t.Helper()
	ctx := hypertest.Context(t)
	for {
		logs, _ := filepath.Glob(h.record(m, "*"))
		for _, l := range logs {
			if b, err := os.ReadFile(l); err == nil && strings.HasSuffix(string(b), want) {
				return
			}
		}
		if err := (clock.System{}).Sleep(ctx, 5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

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
