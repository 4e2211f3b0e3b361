package agent

import (
	"os"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/id"
)

// That a firmware began anew is told by the first start that succeeds, and by an agent
// that came after it, and by no other start.
func TestLostVariablesOutliveAFailedStart(t *testing.T) {
	b := newBench(t)
	next := func() {
		b.head.OwnerEpoch, b.head.OpSeq, b.head.Operation = b.head.OwnerEpoch+1, b.head.OpSeq+1, id.New()
	}
	start := func() (nodelink.Report, error) {
		command := b.launchCommand()
		command.Machine.Firmware = vm.FirmwareUEFI
		return b.send("launch", command)
	}
	off := func() {
		t.Helper()
		if _, err := b.send("off", &nodelink.PowerOff{}); err != nil {
			t.Fatal(err)
		}
		next()
	}
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: 1 << 20}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := start(); err != nil || r.Reason != "" {
		t.Fatalf("the first start: %+v %v", r, err)
	}
	off()
	if err := os.Remove(b.agent.variables(b.vm, vm.FirmwareUEFI)); err != nil {
		t.Fatal(err)
	}
	b.host.SetFaults(b.vm, sim.Faults{Launch: &sim.Failure{Times: 1}})
	if _, err := start(); err == nil {
		t.Fatal("it started")
	}
	next()
	if r, err := start(); err != nil || r.Reason != lostVariables {
		t.Errorf("the start after one that failed: %+v %v", r, err)
	}
	b.restart()
	if r := b.agent.reports.newest(b.vm); r.Reason != lostVariables {
		t.Errorf("a later agent: %+v", r)
	}
	off()
	if r, err := start(); err != nil || r.Reason != "" {
		t.Errorf("the start after: %+v %v", r, err)
	}
}
