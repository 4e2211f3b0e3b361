package agent

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// icy is a bench of a guest that runs, on a clock that stands.
func icy(t *testing.T) (*bench, *clock.Fake) {
	t.Helper()
	b, c := newBench(t), clock.NewFake()
	b.clock = c
	b.restart()
	b.launch()
	return b, c
}

func (b *bench) plainly(c nodelink.Command) (any, error) {
	b.t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.agent.Handle(b.t.Context(), nil, c.Method(), body)
}

func (b *bench) freeze(length time.Duration) error {
	b.t.Helper()
	_, err := b.plainly(&nodelink.FreezeGuest{VM: b.vm, Epoch: b.head.OwnerEpoch, TimeMS: length.Milliseconds()})
	return err
}

// isFrozen asks the guest itself.
func (b *bench) isFrozen() bool {
	b.t.Helper()
	is, err := b.agent.driver.(hypervisor.Guester).Glance(b.t.Context(), hypervisor.Ref{VM: b.vm, Epoch: b.head.OwnerEpoch})
	if err != nil {
		b.t.Fatal(err)
	}
	return is.Frozen
}

func (b *bench) shown() *nodelink.FrozenNote {
	if r := b.agent.reports.newest(b.vm); r.Guest != nil {
		return r.Guest.Frozen
	}
	return nil
}

// tended waits until something is so, while the clock moves on.
func (b *bench) tended(c *clock.Fake, what string, ok func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		c.Advance(time.Second)
		if clock.System.Sleep(clock.System{}, ctx, time.Millisecond) != nil {
			b.t.Fatalf("it is not so: %s", what)
		}
	}
}

// A freeze is shown, ends by itself, and may be ended before; there is one at a time.
func TestFreeze(t *testing.T) {
	b, c := icy(t)
	for _, length := range []time.Duration{0, time.Hour} {
		if err := b.freeze(length); !errs.Is(err, errs.OutOfRange) {
			t.Errorf("for %v: %v", length, err)
		}
	}
	if err := b.freeze(30 * time.Second); err != nil || !b.isFrozen() || b.shown() == nil {
		t.Fatalf("%v, frozen %v, shown %+v", err, b.isFrozen(), b.shown())
	}
	if err := b.freeze(time.Second); !errs.Is(err, errs.InvalidState) {
		t.Errorf("twice: %v", err)
	}
	c.Advance(29 * time.Second)
	b.agent.glance(t.Context())
	if !b.isFrozen() {
		t.Error("its time was not over")
	}
	c.Advance(2 * time.Second)
	b.tended(c, "thawed by its time", func() bool { return !b.isFrozen() && b.shown() == nil })
	if err := b.freeze(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := b.plainly(&nodelink.ThawGuest{VM: b.vm, Epoch: b.head.OwnerEpoch}); err != nil || b.isFrozen() || b.shown() != nil {
			t.Errorf("thawed by hand: %v, shown %+v", err, b.shown())
		}
	}
}

// An agent that dies leaves the freeze to the next one: what is left of its time counts.
func TestFreezeOutlivesTheAgent(t *testing.T) {
	b, c := icy(t)
	if err := b.freeze(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.pass(c, 20*time.Second)
	if !b.isFrozen() || b.shown() == nil {
		t.Fatal("it was thawed before its time, or is not shown")
	}
	b.restart()
	b.tended(c, "thawed by an agent that came later", func() bool { return !b.isFrozen() && b.shown() == nil })
	if b.agent.guest(b.vm).frozen() != nil {
		t.Error("its record still has it")
	}
}

// What no freeze of ours holds is thawed when it is seen.
func TestFrozenByNobody(t *testing.T) {
	b, c := icy(t)
	d := b.agent.driver.(hypervisor.Freezer)
	if _, err := d.Freeze(t.Context(), hypervisor.Ref{VM: b.vm, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	b.pass(c, 10*time.Second)
	if b.isFrozen() {
		t.Error("it is frozen still")
	}
}

// A guest without an agent is not frozen; one whose agent dies frozen says so, and is
// thawed when it comes back.
func TestFrozenWithoutAnAgent(t *testing.T) {
	b, c := icy(t)
	gone := sim.Faults{Agent: &sim.Failure{Code: errs.GuestAgent, Message: "there is no agent"}}
	b.host.SetFaults(b.vm, gone)
	if err := b.freeze(10 * time.Second); !errs.Is(err, errs.GuestAgent) || b.shown() != nil || b.agent.guest(b.vm).frozen() != nil {
		t.Errorf("%v, shown %+v", err, b.shown())
	}
	b.host.SetFaults(b.vm, sim.Faults{})
	if err := b.freeze(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	b.host.SetFaults(b.vm, gone)
	b.tended(c, "told with a reason", func() bool { s := b.shown(); return s != nil && strings.Contains(s.Reason, "there is no agent") })
	b.host.SetFaults(b.vm, sim.Faults{})
	b.tended(c, "thawed by the agent that came back", func() bool { return !b.isFrozen() && b.shown() == nil })
}

// An answer that never came leaves nothing frozen.
func TestFreezeUnanswered(t *testing.T) {
	b, c := icy(t)
	b.host.SetFaults(b.vm, sim.Faults{Agent: &sim.Failure{Times: 1, Code: errs.Timeout}})
	if err := b.freeze(30 * time.Second); !errs.Is(err, errs.Timeout) {
		t.Fatal(err)
	}
	b.tended(c, "given up", func() bool { return b.agent.guest(b.vm).frozen() == nil })
	if b.isFrozen() || b.shown() != nil {
		t.Error("it is frozen")
	}
}

// What ends, or is saved, is thawed before; what is gone is not frozen.
func TestFrozenGuestEnds(t *testing.T) {
	for name, end := range map[string]nodelink.Fenced{"shutdown": &nodelink.Shutdown{GraceMS: 10_000}, "suspend": &nodelink.Suspend{}, "power off": &nodelink.PowerOff{}} {
		b, _ := icy(t)
		if err := b.freeze(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		if r, err := b.send("end", end); err != nil || r.Phase.OnNode() || r.Guest != nil {
			t.Errorf("%s: %+v %v", name, r, err)
		}
		if name != "power off" && b.agent.guest(b.vm).frozen() != nil {
			t.Errorf("%s: it was not thawed before", name)
		}
	}
}
