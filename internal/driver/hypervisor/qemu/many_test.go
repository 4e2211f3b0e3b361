package qemu_test

import (
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

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
