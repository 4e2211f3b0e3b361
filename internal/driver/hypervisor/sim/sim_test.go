package sim_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func start(t *testing.T, d *sim.Driver, m contract.Machine) {
	t.Helper()
	if s, err := d.Launch(t.Context(), m); err != nil || s.Phase != vm.PhaseRunning {
		t.Fatalf("launch gave %+v, %v", s, err)
	}
}

func phase(t *testing.T, d *sim.Driver, v id.ID) vm.Phase {
	t.Helper()
	s, err := d.Inspect(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return s.Phase
}

func poke(t *testing.T, h *sim.Host, v id.ID, want sim.Transition) {
	t.Helper()
	got, err := h.Poke(hypertest.Context(t), v)
	if err != nil || got != want {
		t.Fatalf("released %q, %v, want %q", got, err, want)
	}
}

func TestExplicitModeHoldsEachTransition(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, sim.Options{Mode: sim.Explicit}, rec.Sink)
	m := machine()
	launched := make(chan error, 1)
	go func() {
		_, err := h.driver.Launch(t.Context(), m)
		launched <- err
	}()
	rec.Await(t, m.VM, "starting", func(s contract.Status) bool { return s.Phase == vm.PhaseStarting })
	if n := sim.Executing(h.host)[m.VM]; n != 0 {
		t.Fatalf("%d execute before the launch was released", n)
	}
	poke(t, h.host, m.VM, sim.TransitionLaunch)
	if err := <-launched; err != nil {
		t.Fatal(err)
	}
	if n := sim.Executing(h.host)[m.VM]; n != 1 {
		t.Fatalf("%d execute after the launch was released", n)
	}
	if err := h.driver.Shutdown(t.Context(), m.Ref); err != nil {
		t.Fatal(err)
	}
	if p := phase(t, h.driver, m.VM); p != vm.PhaseStopping {
		t.Fatalf("phase %s before the shutdown was released", p)
	}
	poke(t, h.host, m.VM, sim.TransitionShutdown)
	rec.Await(t, m.VM, "exited", func(s contract.Status) bool { return s.Phase == vm.PhaseExited })
}

func TestPokeWithNothingHeldEndsWithItsContext(t *testing.T) {
	h := newHarness(t, sim.Options{Mode: sim.Explicit}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.host.Poke(ctx, id.New()); !errs.Is(err, errs.Timeout) {
		t.Fatalf("got %v", err)
	}
}

func TestLatencyCountsOnTheClock(t *testing.T) {
	fake := clock.NewFake()
	rec := hypertest.NewRecorder()
	h := newHarness(t, sim.Options{Clock: fake, Latency: sim.Latency{Launch: time.Second, Shutdown: time.Minute}}, rec.Sink)
	m := machine()
	launched := make(chan error, 1)
	go func() {
		_, err := h.driver.Launch(t.Context(), m)
		launched <- err
	}()
	if err := fake.Waiters(hypertest.Context(t), 1); err != nil {
		t.Fatal(err)
	}
	if p := phase(t, h.driver, m.VM); p != vm.PhaseStarting {
		t.Fatalf("phase %s before the latency passed", p)
	}
	fake.Advance(time.Second)
	if err := <-launched; err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Shutdown(t.Context(), m.Ref); err != nil {
		t.Fatal(err)
	}
	if err := fake.Waiters(hypertest.Context(t), 1); err != nil {
		t.Fatal(err)
	}
	fake.Advance(time.Minute)
	rec.Await(t, m.VM, "exited", func(s contract.Status) bool { return s.Phase == vm.PhaseExited })
}

func TestLaunchFailsAsOrdered(t *testing.T) {
	h := newHarness(t, sim.Options{}, nil)
	m := machine()
	h.host.SetFaults(id.Nil, sim.Faults{Launch: &sim.Failure{Times: 2, Code: errs.NoSpace}})
	for range 2 {
		if _, err := h.driver.Launch(t.Context(), m); !errs.Is(err, errs.NoSpace) {
			t.Fatalf("got %v, want no_space", err)
		}
		if left := h.host.Leftovers(); len(left) != 0 {
			t.Fatalf("the failed launch left %v", left)
		}
	}
	start(t, h.driver, m)

	other := machine()
	h.host.SetFaults(other.VM, sim.Faults{Launch: &sim.Failure{}})
	for range 5 {
		if _, err := h.driver.Launch(t.Context(), other); !errs.Is(err, errs.HostFailure) {
			t.Fatalf("got %v, want host_failure", err)
		}
	}
	h.host.ClearFaults()
	start(t, h.driver, other)
}

func TestHangingLaunchEndsWithItsContextAndLeavesNothing(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, sim.Options{}, rec.Sink)
	m := machine()
	h.host.SetFaults(m.VM, sim.Faults{HangLaunch: true})
	ctx, cancel := context.WithCancel(t.Context())
	launched := make(chan error, 1)
	go func() {
		_, err := h.driver.Launch(ctx, m)
		launched <- err
	}()
	rec.Await(t, m.VM, "starting", func(s contract.Status) bool { return s.Phase == vm.PhaseStarting })
	cancel()
	if err := <-launched; !errs.Is(err, errs.Timeout) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if left := h.host.Leftovers(); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

func TestAgentDyingInLaunchLeavesItHalfDone(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, sim.Options{Mode: sim.Explicit}, rec.Sink)
	m := machine()
	launched := make(chan error, 1)
	go func() {
		_, err := h.driver.Launch(t.Context(), m)
		launched <- err
	}()
	rec.Await(t, m.VM, "starting", func(s contract.Status) bool { return s.Phase == vm.PhaseStarting })
	h.driver.Die()
	if err := <-launched; err == nil {
		t.Fatal("a launch of a dead agent succeeded")
	}
	next := sim.New(h.host, rec.Sink)
	defer func() { _ = next.Close() }()
	found, err := next.Adopt(t.Context())
	if err != nil || len(found) != 1 || found[0].Phase != vm.PhaseStarting {
		t.Fatalf("the next agent found %+v, %v, want one starting", found, err)
	}
	go func() {
		_, err := next.Launch(t.Context(), m)
		launched <- err
	}()
	poke(t, h.host, m.VM, sim.TransitionLaunch)
	if err := <-launched; err != nil {
		t.Fatalf("launching again: %v", err)
	}
}

func TestKillMayNotBeProven(t *testing.T) {
	h := newHarness(t, sim.Options{}, nil)
	m := machine()
	start(t, h.driver, m)
	h.host.SetFaults(m.VM, sim.Faults{Kill: &sim.Failure{Times: 1, Code: errs.Timeout}})
	if _, err := h.driver.Kill(t.Context(), m.Ref); !errs.Is(err, errs.Timeout) {
		t.Fatalf("got %v", err)
	}
	if n := sim.Executing(h.host)[m.VM]; n != 1 {
		t.Fatalf("%d execute after a kill that failed", n)
	}
	if _, err := h.driver.Kill(t.Context(), m.Ref); err != nil {
		t.Fatal(err)
	}
}

func TestFate(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, sim.Options{}, rec.Sink)
	crashing, lost, full, other := machine(), machine(), machine(), machine()
	h.host.SetFaults(crashing.VM, sim.Faults{CrashAfterLaunch: true})
	for _, m := range []contract.Machine{crashing, lost, full, other} {
		start(t, h.driver, m)
	}
	rec.Await(t, crashing.VM, "crash", func(s contract.Status) bool { return s.Phase == vm.PhaseCrashed })

	h.host.Lose(lost.VM)
	if _, err := h.driver.Inspect(t.Context(), lost.VM); !errs.Is(err, errs.NotFound) {
		t.Fatalf("a lost VM is %v", err)
	}
	h.host.BreakDisk(full.VM, "no space left for disk vda")
	if s, _ := h.driver.Inspect(t.Context(), full.VM); s.Phase != vm.PhasePaused || s.Reason == "" {
		t.Fatalf("a VM with a full disk is %+v", s)
	}
	h.host.PowerLoss()
	for _, m := range []contract.Machine{full, other} {
		if p := phase(t, h.driver, m.VM); p != vm.PhaseCrashed {
			t.Fatalf("after a power loss a VM is %s", p)
		}
	}
}

func TestOracleSeesADouble(t *testing.T) {
	one, two := newHarness(t, sim.Options{}, nil), newHarness(t, sim.Options{}, nil)
	m := machine()
	start(t, one.driver, m)
	if got := sim.Doubles(one.host, two.host); len(got) != 0 {
		t.Fatalf("doubles %v before there is one", got)
	}
	start(t, two.driver, m)
	if got := sim.Doubles(one.host, two.host); !slices.Equal(got, []id.ID{m.VM}) {
		t.Fatalf("doubles %v, want the VM that runs twice", got)
	}
	if _, err := one.driver.Pause(t.Context(), m.Ref); err != nil {
		t.Fatal(err)
	}
	if got := sim.Doubles(one.host, two.host); len(got) != 0 {
		t.Fatalf("a paused guest does not execute, but doubles are %v", got)
	}
}

func TestGuestsSurviveTheProcess(t *testing.T) {
	opt := sim.Options{Dir: t.TempDir()}
	h := newHarness(t, opt, nil)
	m := machine()
	m.NICs = []contract.NIC{{
		ID: id.New(), MAC: "52:54:00:12:34:56",
		Forwards: []contract.Forward{{Protocol: "tcp", HostPort: 2222, GuestPort: 22}},
	}}
	start(t, h.driver, m)
	before, _ := h.driver.Inspect(t.Context(), m.VM)

	h = newHarness(t, opt, nil) // another process on the same folder
	found, err := h.driver.Adopt(t.Context())
	if err != nil || len(found) != 1 || found[0].Ref != before.Ref || found[0].Phase != vm.PhaseRunning {
		t.Fatalf("found %+v, %v, want %+v", found, err, before)
	}
	thief := machine()
	thief.NICs = m.NICs
	if _, err := h.driver.Launch(t.Context(), thief); !errs.Is(err, errs.InUse) {
		t.Fatalf("the port of a restored guest is free: %v", err)
	}
	if _, err := h.driver.Kill(t.Context(), m.Ref); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Release(t.Context(), m.VM); err != nil {
		t.Fatal(err)
	}
	if left := h.host.Leftovers(); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

func TestTwentyThousandGuestsAreCheap(t *testing.T) {
	const n = 20000
	h := newHarness(t, sim.Options{}, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	for range n {
		start(t, h.driver, machine())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (after.HeapAlloc - before.HeapAlloc) / n; each > 4096 {
		t.Errorf("each guest costs %d bytes, want at most 4096", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 10 {
		t.Errorf("the guests cost %d goroutines", more)
	}
	if all, err := h.driver.Adopt(t.Context()); err != nil || len(all) != n {
		t.Fatalf("adopted %d, %v", len(all), err)
	}
}
