package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A VM whose memory is saved is reported as suspended, whatever came of an attempt to let
// it go on: its failure, what the driver tells of that, and what a later agent finds.
func TestSuspendedStaysSuspended(t *testing.T) {
	b := newBench(t)
	next := func() {
		b.head.OwnerEpoch, b.head.OpSeq, b.head.Operation = b.head.OwnerEpoch+1, b.head.OpSeq+1, id.New()
	}
	is := func(when string, phase vm.Phase) {
		t.Helper()
		r := b.agent.reports.newest(b.vm)
		if r == nil || r.Phase != phase || r.Epoch != b.head.OwnerEpoch {
			t.Errorf("%s: %+v, want %s at epoch %d", when, r, phase, b.head.OwnerEpoch)
		}
	}
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: 1 << 20}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("launch", b.launchCommand()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("suspend", &nodelink.Suspend{}); err != nil {
		t.Fatal(err)
	}
	is("suspended", vm.PhaseSuspended)
	b.host.SetFaults(b.vm, sim.Faults{HangLaunch: true})
	again := func(budget int64) error {
		c := b.launchCommand()
		c.Resume = true
		b.head.BudgetMS = budget
		_, err := b.send("launch", c)
		return err
	}
	next()
	if err := again(50); !errs.Is(err, errs.Timeout) {
		t.Fatalf("it went on: %v", err)
	}
	is("after it did not go on", vm.PhaseSuspended)

	// its process dies while it is read, and the agent over that
	next()
	over := make(chan error)
	go func() { over <- again(60_000) }()
	for b.agent.reports.newest(b.vm).Phase != vm.PhaseStarting {
		_ = b.clock.Sleep(t.Context(), time.Millisecond)
	}
	if !b.host.Crash(b.vm, "killed") {
		t.Fatal("it has no process")
	}
	is("after its process died", vm.PhaseSuspended)
	b.restart()
	if err := <-over; err == nil {
		t.Error("it went on")
	}
	is("found by a later agent", vm.PhaseSuspended)
	if err := again(60_000); !errs.Is(err, errs.HostFailure) || !strings.Contains(err.Error(), "resume it again") {
		t.Errorf("the same step again: %v", err)
	}
	is("after the same step again", vm.PhaseSuspended)
	b.boot = "boot-2"
	b.restart()
	is("after a reboot of its host", vm.PhaseSuspended)

	b.host.ClearFaults()
	next()
	if err := again(10_000); err != nil {
		t.Fatal(err)
	}
	is("went on", vm.PhaseRunning)
	if _, err := b.send("power off", &nodelink.PowerOff{}); err != nil {
		t.Fatal(err)
	}
	is("powered off", vm.PhaseExited)
	b.restart()
	is("powered off, to a later agent", vm.PhaseExited)
}
