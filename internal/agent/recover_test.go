package agent

import (
	"os"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A VM that cannot be started again after a reboot is reported as failed, with
// the reason: nobody may go on believing that it runs. The next start tries again.
func TestRelaunchFails(t *testing.T) {
	b := newBench(t)
	b.launch()
	b.host.PowerLoss()
	b.host.SetFaults(b.vm, sim.Faults{Launch: &sim.Failure{}})
	b.boot = "boot-2"
	b.restart()
	if got := b.last(); b.executing() != 0 || got.Phase != vm.PhaseCrashed || got.Reason == "" || got.Epoch != 1 {
		t.Errorf("%d execute, reported %+v", b.executing(), got)
	}
	b.host.ClearFaults()
	b.restart()
	if got := b.last(); b.executing() != 1 || got.Phase != vm.PhaseRunning {
		t.Errorf("%d execute, reported %+v", b.executing(), got)
	}
}

// An agent that dies between launching after a reboot and writing that down
// neither launches twice nor takes the next restart for a reboot.
func TestAgentDiesWhileItRelaunches(t *testing.T) {
	b := newBench(t)
	b.launch()
	b.boot = "boot-2" // launched again under it, and the record still says boot-1
	b.restart()
	if b.executing() != 1 {
		t.Fatalf("%d execute", b.executing())
	}
	b.host.Crash(b.vm, "killed by signal 9")
	b.restart()
	if got := b.last(); b.executing() != 0 || got.Phase != vm.PhaseCrashed {
		t.Errorf("%d execute, reported %+v", b.executing(), got)
	}
}

// A shutdown of the node that was broken off half-way leaves guests that run on:
// the next agent reports them as running, and not as stopping for ever.
func TestShutdownBrokenOff(t *testing.T) {
	b := newBench(t)
	b.host.SetFaults(b.vm, sim.Faults{IgnoreShutdown: true})
	r := b.launch()
	if err := b.agent.driver.Shutdown(t.Context(), hypervisor.Ref{VM: b.vm, Epoch: r.Epoch}); err != nil {
		t.Fatal(err)
	}
	if got := b.last(); got.Phase != vm.PhaseStopping {
		t.Fatalf("after it was asked: %+v", got)
	}
	b.restart()
	if got := b.last(); b.executing() != 1 || got.Phase != vm.PhaseRunning {
		t.Errorf("%d execute, reported %+v", b.executing(), got)
	}
}

// A process that is gone without a trace is reported, by what the record says of
// the VM.
func TestProcessGoneWithoutATrace(t *testing.T) {
	for on, want := range map[bool]vm.Phase{true: vm.PhaseCrashed, false: vm.PhaseExited} {
		b := newBench(t)
		b.launch()
		if !on {
			if _, err := b.send("stop", &nodelink.PowerOff{}); err != nil {
				t.Fatal(err)
			}
		}
		_ = b.agent.Close()
		b.host.Crash(b.vm, "gone")
		if err := sim.New(b.host, nil).Release(t.Context(), b.vm); err != nil {
			t.Fatal(err)
		}
		b.restart()
		if got := b.last(); got.Phase != want || got.Epoch != 1 {
			t.Errorf("should run %v: reported %+v", on, got)
		}
	}
}

// Fences are kept for a day and no longer, those of creations that were cancelled
// included; what runs is kept whatever its record says.
func TestPrune(t *testing.T) {
	b := newBench(t)
	if _, err := b.send("fetch image", &nodelink.EnsureImages{}); err != nil {
		t.Fatal(err)
	}
	path := b.agent.records.path(b.vm)
	b.agent.prune()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a fresh fence is gone: %v", err)
	}
	age := func() {
		old := b.agent.cfg.Clock.Now().Add(-fenceLife - time.Minute)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		b.agent.prune()
	}
	age()
	if _, err := os.Stat(path); err == nil || len(b.agent.all()) != 0 {
		t.Error("an old fence stays for ever")
	}
	b.head.OpSeq, b.head.Operation = 2, id.New()
	b.launch()
	age()
	if len(b.agent.all()) != 1 {
		t.Error("a VM that runs was forgotten")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	b.restart() // adopted without a record
	b.agent.prune()
	if len(b.agent.all()) != 1 {
		t.Error("a guest without a record was forgotten")
	}
}
