package migration

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func host(name string, change ...func(*node.Node)) node.Node {
	n := node.Node{
		ID: id.New(), Name: name, State: node.Active, Reporting: true,
		Capacity:  node.Resources{CPUs: 16, MemoryBytes: 64 * unit.GiB, DiskBytes: 1000 * unit.GiB},
		Inventory: node.Inventory{Hypervisor: "qemu", HypervisorVersion: "7.2.22", Acceleration: "kvm", CPUModel: "EPYC 1", Bridges: []node.Bridge{{Name: "br0", Allowed: true}}},
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func stopped(on node.Node, change ...func(*vm.View)) vm.View {
	v := vm.View{
		Intent:   vm.Intent{ID: id.New(), Name: "web", CPUs: 2, MemoryBytes: 4 * unit.GiB, NodeID: &on.ID, Epoch: 3, Hardware: vm.Hardware{}.OrDefault()},
		Volumes:  []vm.Volume{{ID: id.New(), SizeBytes: 10 * unit.GiB}},
		Observed: &vm.Observation{Epoch: 3, NodeID: on.ID, Phase: vm.PhaseExited},
	}
	for _, c := range change {
		c(&v)
	}
	return v
}

func suspendedIt(v *vm.View) { v.Observed.Phase = vm.PhaseSuspended }

// Every node is either a candidate or rejected with why; the source is never one.
func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		vm   func(*vm.View)
		node func(*node.Node)
		// why the other node is rejected; empty for a candidate
		why string
	}{
		"Suits":              {},
		"Cordoned":           {node: func(n *node.Node) { n.State = node.Cordoned }, why: "cordoned"},
		"Away":               {node: func(n *node.Node) { n.Reporting = false }, why: "report"},
		"NoDisk":             {node: func(n *node.Node) { n.Used.DiskBytes = n.Capacity.DiskBytes }, why: "10 GiB needed"},
		"BusyNowIsNoReason":  {node: func(n *node.Node) { n.Used.CPUs, n.Used.MemoryBytes = 16, 64*unit.GiB }},
		"NeverEnoughMemory":  {node: func(n *node.Node) { n.Capacity.MemoryBytes = unit.GiB }, why: "in all"},
		"NeverEnoughCPUs":    {node: func(n *node.Node) { n.Capacity.CPUs = 1 }, why: "in all"},
		"Simulated":          {node: func(n *node.Node) { n.Simulated = true }, why: "simulated"},
		"NoBridge":           {vm: func(v *vm.View) { v.NICs = []vm.NIC{{Bridge: "br1"}} }, why: "br1"},
		"Bridge":             {vm: func(v *vm.View) { v.NICs = []vm.NIC{{Bridge: "br0"}} }},
		"OlderHypervisor":    {vm: suspendedIt, node: func(n *node.Node) { n.Inventory.HypervisorVersion = "7.2.21" }, why: "not older"},
		"NewerHypervisor":    {vm: suspendedIt, node: func(n *node.Node) { n.Inventory.HypervisorVersion = "10.0.2" }},
		"OlderIsNoMatter":    {node: func(n *node.Node) { n.Inventory.HypervisorVersion = "6.0.0" }},
		"OtherAcceleration":  {vm: suspendedIt, node: func(n *node.Node) { n.Inventory.Acceleration = "tcg" }, why: "saved under kvm"},
		"OtherProcessor":     {vm: func(v *vm.View) { suspendedIt(v); v.Intent.Hardware.CPU = vm.CPUHost }, node: func(n *node.Node) { n.Inventory.CPUModel = "EPYC 2" }, why: "another processor"},
		"NamedProcessorGoes": {vm: func(v *vm.View) { suspendedIt(v); v.Intent.Hardware.CPU = vm.CPUBaseline2 }, node: func(n *node.Node) { n.Inventory.CPUModel = "EPYC 2" }},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := host("a"), host("b")
			if c.node != nil {
				c.node(&b)
			}
			v := stopped(a)
			if c.vm != nil {
				c.vm(&v)
			}
			p, err := PlanOf(v, []node.Node{a, b}, "")
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Ranked)+len(p.Rejected) != 2 {
				t.Errorf("not every node is told: %+v", p)
			}
			if c.why == "" && (p.Fits() != nil || p.Target().Name != "b") {
				t.Errorf("%+v %v", p, p.Fits())
			}
			if c.why != "" && (!errs.Is(p.Fits(), errs.NoNodeFits) || !strings.Contains(p.Fits().Error(), c.why)) {
				t.Errorf("%v", p.Fits())
			}
		})
	}
}

// What executes, may be started by its node, or is where it is to go, is refused with
// the way out.
func TestPlanRefuses(t *testing.T) {
	a, b := host("a"), host("b")
	for name, c := range map[string]struct {
		vm  func(*vm.View)
		to  string
		say string
	}{
		"Running":       {vm: func(v *vm.View) { v.Observed.Phase = vm.PhaseRunning }, say: "suspend it first"},
		"Paused":        {vm: func(v *vm.View) { v.Observed.Phase = vm.PhasePaused }, say: "suspend it first"},
		"EndedByItself": {vm: func(v *vm.View) { v.Intent.PowerOn = true }, say: "stop it first"},
		"There":         {to: "a", say: "already"},
		"Nowhere":       {vm: func(v *vm.View) { v.Intent.NodeID = nil }, say: "on no node"},
	} {
		t.Run(name, func(t *testing.T) {
			v := stopped(a)
			if c.vm != nil {
				c.vm(&v)
			}
			if p, err := PlanOf(v, []node.Node{a, b}, c.to); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%+v %v", p, err)
			}
		})
	}
}

// The node that was asked for is taken, though another suits better, and rejected alone.
func TestPlanToANode(t *testing.T) {
	a, b, c := host("a"), host("b", func(n *node.Node) { n.Used.DiskBytes = 900 * unit.GiB }), host("c")
	p, err := PlanOf(stopped(a, suspendedIt), []node.Node{a, b, c}, "b")
	if err != nil || p.Target().Name != "b" || len(p.Ranked) != 1 || p.Bytes != 14*unit.GiB {
		t.Errorf("%+v %v", p, err)
	}
	if p, err = PlanOf(stopped(a), []node.Node{a, b, c}, ""); err != nil || p.Target().Name != "c" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"7.2.22", "10.0.2", true},
		{"10.0.2", "7.2.22", false},
		{"7.2", "7.2.0", false},
		{"7.2", "7.2.1", true},
		{"7.2.22 (Debian 1:7.2+dfsg-7)", "7.2.22", false},
		{"", "7.2", false},
		{"7.2", "", false},
		{"x", "y", false},
		{"7.2.99999999999999999999", "7.3", true},
	} {
		if got := Older(c.a, c.b); got != c.want {
			t.Errorf("%q older than %q: %v", c.a, c.b, got)
		}
	}
}
