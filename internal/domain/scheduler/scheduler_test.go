package scheduler

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func host(name string, cpus int, mem int64) node.Node {
	return node.Node{
		ID: id.New(), Name: name, State: node.Active, Reporting: true,
		Capacity: node.Resources{CPUs: cpus, MemoryBytes: mem, DiskBytes: unit.TiB},
	}
}

func TestPlacePrefersTheEmptier(t *testing.T) {
	a, b := host("a", 8, 16*unit.GiB), host("b", 8, 16*unit.GiB)
	a.Used.MemoryBytes, a.Committed.MemoryBytes = 8*unit.GiB, 8*unit.GiB
	plan, _, ok := Place([]node.Node{a, b}, Request{CPUs: 1, MemoryBytes: unit.GiB})
	if !ok || plan.Node != b.ID {
		t.Errorf("chose %+v", plan)
	}
}

// Stopped VMs take nothing now and can start nowhere else: a fleet made stopped
// must not pile up on one node, where it could never run.
func TestPlaceSpreadsStoppedVMs(t *testing.T) {
	nodes := []node.Node{host("a", 8, 16*unit.GiB), host("b", 8, 16*unit.GiB), host("c", 8, 16*unit.GiB)}
	got := map[id.ID]int{}
	for range 12 {
		plan, _, ok := Place(nodes, Request{CPUs: 1, MemoryBytes: unit.GiB, DiskBytes: unit.MiB})
		if !ok {
			t.Fatal("nothing fits")
		}
		got[plan.Node]++
		for i := range nodes {
			if nodes[i].ID == plan.Node {
				nodes[i].Committed.CPUs++
				nodes[i].Committed.MemoryBytes += unit.GiB
			}
		}
	}
	for n, count := range got {
		if count != 4 {
			t.Errorf("node %s got %d of 12 VMs", n, count)
		}
	}
}

func TestPlaceExplainsEveryNode(t *testing.T) {
	small, cordoned, silent := host("small", 1, unit.GiB), host("cordoned", 8, 64*unit.GiB), host("silent", 8, 64*unit.GiB)
	cordoned.State, silent.Reporting = node.Cordoned, false
	_, rejected, ok := Place([]node.Node{small, cordoned, silent}, Request{CPUs: 2, MemoryBytes: 2 * unit.GiB})
	if ok || len(rejected) != 3 {
		t.Fatalf("ok %v, rejected %+v", ok, rejected)
	}
	got := Explain(rejected)
	for _, want := range []string{"small has 1 CPUs free of 1, 2 needed and has 1 GiB memory free of 1 GiB, 2 GiB needed", "cordoned is cordoned", "silent does not report"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

// Safety: whatever the snapshot, a chosen node has room, takes VMs, and is the
// one asked for; and when something fits, something is chosen.
func TestPlaceIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []node.Node
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			n := host(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"), rapid.IntRange(0, 8).Draw(t, "cpus"), rapid.Int64Range(0, 8).Draw(t, "mem"))
			n.Used.CPUs = rapid.IntRange(0, 10).Draw(t, "used")
			n.Used.MemoryBytes = rapid.Int64Range(0, 10).Draw(t, "usedmem")
			n.Reporting = rapid.Bool().Draw(t, "reporting")
			n.State = rapid.SampledFrom([]node.State{node.Active, node.Cordoned, node.Removed}).Draw(t, "state")
			nodes = append(nodes, n)
		}
		r := Request{CPUs: rapid.IntRange(1, 4).Draw(t, "want"), MemoryBytes: rapid.Int64Range(1, 4).Draw(t, "wantmem")}
		plan, rejected, ok := Place(nodes, r)
		if len(plan.Ranked)+len(rejected) != len(nodes) {
			t.Fatalf("%d nodes, %d ranked, %d rejected", len(nodes), len(plan.Ranked), len(rejected))
		}
		fits := false
		for _, n := range nodes {
			room := n.Reporting && n.State == node.Active && n.Capacity.CPUs-n.Used.CPUs >= r.CPUs && n.Capacity.MemoryBytes-n.Used.MemoryBytes >= r.MemoryBytes
			fits = fits || room
			if ok && n.ID == plan.Node && !room {
				t.Fatalf("chose %+v for %+v", n, r)
			}
		}
		if fits != ok {
			t.Fatalf("fits %v, chosen %v", fits, ok)
		}
	})
}

// A VM with limits goes where they can be set, and is told why it goes nowhere.
func TestPlaceWhereLimitsCanBeSet(t *testing.T) {
	plain, able := host("plain", 64, unit.TiB), host("able", 8, 16*unit.GiB)
	able.Inventory.Limits = []string{"cpu_weight", "cpu_cap", "disk_io"}
	want := Request{CPUs: 1, MemoryBytes: unit.GiB, Limits: []string{"cpu_cap", "disk_io"}}
	plan, rejected, ok := Place([]node.Node{plain, able}, want)
	if !ok || plan.Node != able.ID || len(rejected) != 1 {
		t.Fatalf("%+v %+v", plan, rejected)
	}
	if got := rejected[0].Reasons[0]; got != "cannot limit guests by a cap of CPUs and rates of disks" {
		t.Errorf("%q", got)
	}
}

// Secure boot on an emulated processor of all features goes nowhere; on any other, and
// where processors are not emulated, it does.
func TestPlaceWhereSecureBootStarts(t *testing.T) {
	for _, c := range []struct {
		cpu, firmware, acceleration string
		fits                        bool
	}{
		{vm.CPUMax, vm.FirmwareSecure, "tcg", false},
		{vm.CPUMax, vm.FirmwareSecure, "kvm", true},
		{vm.CPUMax, vm.FirmwareUEFI, "tcg", true},
		{vm.CPUBaseline2, vm.FirmwareSecure, "tcg", true},
	} {
		n := node.Node{Inventory: node.Inventory{Acceleration: c.acceleration, Firmware: []string{"bios", vm.FirmwareUEFI, vm.FirmwareSecure}}}
		why := firmware(n, Request{Hardware: vm.Hardware{CPU: c.cpu, Firmware: c.firmware}})
		if (why == "") != c.fits || (!c.fits && !strings.Contains(why, "take x86-64-v2")) {
			t.Errorf("%+v: %q", c, why)
		}
	}
}
