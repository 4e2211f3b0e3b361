package qemu_test

import (
	_ "embed"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// tickSector is guestcode/tick.s: a guest that shows when it executed.
//
//go:embed guestcode/tick.bin
var tickSector []byte

// worstGap watches the consoles of guests that tick, and gives the longest time in
// which one of them was not seen to, as seen every few milliseconds while f runs and for
// a moment after.
func (h *harness) worstGap(t *testing.T, all []contract.Machine, f func()) time.Duration {
	t.Helper()
	const step, after = 5 * time.Millisecond, time.Second
	began := clock.System{}.Boot()
	size, seen := make([]int64, len(all)), make([]time.Duration, len(all))
	for i := range seen {
		seen[i] = began
	}
	over, worst := make(chan struct{}), time.Duration(0)
	look := func() {
		for i, m := range all {
			now, grown := clock.System{}.Boot(), h.printed(m)
			worst = max(worst, now-seen[i])
			if grown != size[i] {
				size[i], seen[i] = grown, now
			}
		}
	}
	go func() { defer close(over); f(); _ = clock.System{}.Sleep(t.Context(), after) }()
	for {
		look()
		select {
		case <-over:
			return worst
		default:
			_ = clock.System{}.Sleep(t.Context(), step)
		}
	}
}

// printed is how many bytes a guest's console is recorded to have printed.
func (h *harness) printed(m contract.Machine) (bytes int64) {
	files, _ := filepath.Glob(h.record(m, "serial.*"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// While an agent ends and its successor takes them up, guests execute as they do
// without. What others do on this machine stops guests too: so the two are compared,
// several times if need be; a stop that an agent causes would be in each.
func TestGuestsDoNotNoticeAnotherAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("beside the race detector an agent takes processors from guests that no agent takes otherwise: 'make test' measures it")
	}
	const many, times = 20, 6
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	all := make([]contract.Machine, many)
	for i := range all {
		all[i] = h.machine(t, tickSector)
		h.launch(t, all[i])
		h.readLog(t, all[i], "..")
	}
	for range times {
		usual := h.worstGap(t, all, func() { _ = clock.System{}.Sleep(ctx, time.Second) })
		gap := h.worstGap(t, all, func() {
			h.Away(t, nil)
			if found, err := h.driver.Adopt(ctx); err != nil || len(found) != many {
				t.Errorf("the next agent found %d guests, %v", len(found), err)
			}
		})
		t.Logf("longest time in which one of %d guests did not execute: usually %v, with another agent %v", many, usual, gap)
		if gap <= usual+usual/10 {
			return
		}
	}
	t.Error("guests stand still when the agent changes")
}

// An agent that comes back takes up twenty guests within five seconds, each by the
// process that it had.
func TestManyGuestsAreAdopted(t *testing.T) {
	const many, within = 20, 5 * time.Second
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	pids := map[id.ID]int{}
	for range many {
		m := h.Machine(t, hypertest.Polite)
		pids[m.VM] = h.launch(t, m).PID
	}
	if err := h.driver.Close(); err != nil {
		t.Fatal(err)
	}
	began := clock.System{}.Boot()
	h.open()
	found, err := h.driver.Adopt(ctx)
	if err != nil {
		t.Fatal(err)
	}
	took := clock.System{}.Boot() - began
	t.Logf("%d guests were taken up in %v", len(found), took)
	if took > within {
		t.Errorf("it took %v to take up %d guests, more than %v", took, len(found), within)
	}
	for _, s := range found {
		if s.Phase != vm.PhaseRunning || s.PID != pids[s.VM] {
			t.Errorf("VM %s is %s as process %d, was %d", s.VM, s.Phase, s.PID, pids[s.VM])
		}
		delete(pids, s.VM)
	}
	if len(pids) > 0 {
		t.Errorf("not taken up: %v", pids)
	}
}
