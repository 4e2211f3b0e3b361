package sim_test

import (
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/vocab/id"
)

// harness is a simulated host for the conformance suite.
type harness struct {
	host   *sim.Host
	sink   contract.Sink
	driver *sim.Driver
	port   int
}

func newHarness(t *testing.T, opt sim.Options, sink contract.Sink) *harness {
	host, err := sim.NewHost(opt)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{host: host, sink: sink, port: 20000}
	h.driver = sim.New(host, sink)
	t.Cleanup(func() {
		_ = h.driver.Close()
		host.Close()
	})
	return h
}

func (h *harness) Driver() contract.Driver { return h.driver }

func (h *harness) Machine(_ *testing.T, k hypertest.Kind) contract.Machine {
	m := machine()
	if k == hypertest.Deaf {
		h.host.SetFaults(m.VM, sim.Faults{IgnoreShutdown: true})
	}
	return m
}

func (h *harness) Twin(_ *testing.T, m contract.Machine) contract.Machine {
	m.Epoch++
	return m
}

func machine() contract.Machine {
	return contract.Machine{
		Ref:         contract.Ref{VM: id.New(), Epoch: 1},
		CPUs:        1,
		MemoryBytes: 64 << 20,
		Disks:       []contract.Disk{{ID: id.New(), File: contract.File{Path: "/disk", Format: "raw"}}},
	}
}

func (h *harness) Away(t *testing.T, while func()) {
	if err := h.driver.Close(); err != nil {
		t.Fatal(err)
	}
	if while != nil {
		while()
	}
	h.driver = sim.New(h.host, h.sink)
}

func (h *harness) CrashGuest(t *testing.T, vm id.ID) {
	if !h.host.Crash(vm, "killed by signal 9") {
		t.Fatal("no guest to crash")
	}
}

func (h *harness) PowerOffGuest(t *testing.T, vm id.ID) {
	if !h.host.PowerOff(vm) {
		t.Fatal("no guest to power off")
	}
}

func (h *harness) FreePort(*testing.T) int {
	h.port++
	return h.port
}

func (h *harness) Leftovers() []string { return h.host.Leftovers() }

func TestConformance(t *testing.T) {
	hypertest.Exercise(t, func(t *testing.T, sink contract.Sink) hypertest.Harness {
		return newHarness(t, sim.Options{}, sink)
	})
}

func TestConformanceInFiles(t *testing.T) {
	hypertest.Exercise(t, func(t *testing.T, sink contract.Sink) hypertest.Harness {
		return newHarness(t, sim.Options{Dir: t.TempDir()}, sink)
	})
}
