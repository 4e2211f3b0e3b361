package drain

import (
	"fmt"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func host(name string, memory int64) node.Node {
	return node.Node{
		ID: id.New(), Name: name, State: node.Active, Reporting: true,
		Capacity: node.Resources{CPUs: 64, MemoryBytes: memory, DiskBytes: 1 << 40},
	}
}

// guest is a VM of one GiB of memory and ten of disk that runs on a node.
func guest(name string, on node.Node, change ...func(*vm.View)) vm.View {
	n := on.ID
	v := vm.View{
		Intent:   vm.Intent{ID: id.New(), Name: name, CPUs: 1, MemoryBytes: unit.GiB, NodeID: &n, Epoch: 3, PowerOn: true, Reserved: true},
		Node:     &vm.NodeView{ID: n, Name: on.Name, Reporting: true},
		Observed: &vm.Observation{Epoch: 3, NodeID: n, Phase: vm.PhaseRunning},
		Volumes:  []vm.Volume{{ID: id.New(), SizeBytes: 10 * unit.GiB}},
	}
	for _, c := range change {
		c(&v)
	}
	return v
}

func stopped(v *vm.View) {
	v.Intent.PowerOn, v.Intent.Reserved, v.Observed.Phase = false, false, vm.PhaseExited
}

func policy(p vm.DrainPolicy) func(*vm.View) {
	return func(v *vm.View) { v.Intent.Policy.Drain = p }
}

func place(n node.Node) migration.Place { return migration.Place{Node: n.ID, Name: n.Name} }

// livelier is a host that moves guests which execute.
func livelier(name string, memory int64) node.Node {
	n := host(name, memory)
	n.Inventory.LiveMigration = true
	return n
}

func TestDecide(t *testing.T) {
	a, b := host("a", 64*unit.GiB), host("b", 64*unit.GiB)
	nodes := []node.Node{a, b}
	for name, c := range map[string]struct {
		vm     []func(*vm.View)
		policy vm.DrainPolicy
		want   Action
		runs   bool
		first  Stage
		why    string
	}{
		"NotLive":        {want: Cold, runs: true, policy: vm.DrainLive, first: Stopping, why: "it does not move while it runs: "},
		"Cold":           {want: Cold, runs: true, policy: vm.DrainCold, first: Stopping},
		"Stop":           {want: Stop, runs: true, policy: vm.DrainStop, first: Stopping},
		"Refuse":         {want: Block, runs: true, policy: vm.DrainRefuse, why: "its drain policy is refuse"},
		"StoppedMoves":   {vm: []func(*vm.View){stopped}, want: Cold, policy: vm.DrainLive, first: Moving},
		"StoppedIsLeft":  {vm: []func(*vm.View){stopped}, want: Leave, policy: vm.DrainStop, why: "does not run"},
		"SuspendedMoves": {vm: []func(*vm.View){stopped, func(v *vm.View) { v.Observed.Phase = vm.PhaseSuspended }}, want: Cold, policy: vm.DrainCold, first: Moving},
		// its guest powered itself off: that is made final, and it stays off
		"EndedByItself": {vm: []func(*vm.View){func(v *vm.View) { v.Observed.Phase = vm.PhaseExited }}, want: Cold, policy: vm.DrainCold, first: Stopping},
		"IsRestarted": {vm: []func(*vm.View){func(v *vm.View) {
			v.Observed.Phase, v.Intent.Policy.Restart = vm.PhaseCrashed, vm.RestartAlways
		}}, want: Cold, runs: true, policy: vm.DrainCold, first: Stopping},
		"Paused":   {vm: []func(*vm.View){func(v *vm.View) { v.Observed.Phase = vm.PhasePaused }}, want: Block, runs: true, policy: vm.DrainCold, why: "paused"},
		"Unknown":  {vm: []func(*vm.View){func(v *vm.View) { v.Node.Reporting = false }}, want: Block, runs: true, policy: vm.DrainLive, why: "does not report"},
		"Held":     {vm: []func(*vm.View){func(v *vm.View) { v.Job = &vm.JobView{ID: id.New(), Kind: vm.JobLimit} }}, want: Cold, runs: true, policy: vm.DrainCold, first: Stopping, why: "vm.limit"},
		"HalfWay":  {vm: []func(*vm.View){func(v *vm.View) { v.Job = &vm.JobView{ID: id.New(), Kind: vm.JobLimit, Attention: true} }}, want: Block, runs: true, policy: vm.DrainCold, why: "half-way"},
		"NoBridge": {vm: []func(*vm.View){func(v *vm.View) { v.NICs = []vm.NIC{{Bridge: "br7"}} }}, want: Block, runs: true, policy: vm.DrainLive, why: "br7"},
		"TooLarge": {vm: []func(*vm.View){func(v *vm.View) { v.Intent.MemoryBytes = 63 * unit.GiB }, stopped}, want: Cold, policy: vm.DrainCold, first: Moving},
	} {
		t.Run(name, func(t *testing.T) {
			v := guest("x", a, c.vm...)
			i := Decide(v, nodes, c.policy, "")
			if i.Action != c.want || i.Runs != c.runs || !strings.Contains(i.Why, c.why) {
				t.Errorf("%+v", i)
			}
			if i.Moves() != (i.Target.Name == "b") || (i.Action == Block || i.Action == Leave) != (i.State == Left) {
				t.Errorf("%+v", i)
			}
			if c.first != "" && i.First(v.Rests()) != c.first {
				t.Errorf("begins with %s", i.First(v.Rests()))
			}
		})
	}
}

// What moves while it runs does, unless its policy is another; paused it does too.
func TestDecideLive(t *testing.T) {
	a, b := livelier("a", 64*unit.GiB), livelier("b", 64*unit.GiB)
	paused := func(v *vm.View) { v.Observed.Phase = vm.PhasePaused }
	micro := func(v *vm.View) { v.Intent.Hardware.Type = vm.MachineMicro }
	for name, c := range map[string]struct {
		vm     func(*vm.View)
		policy vm.DrainPolicy
		want   Action
	}{
		"Live":    {func(*vm.View) {}, vm.DrainLive, Live},
		"Paused":  {paused, vm.DrainLive, Live},
		"Cold":    {func(*vm.View) {}, vm.DrainCold, Cold},
		"Cannot":  {micro, vm.DrainLive, Cold},
		"Stopped": {stopped, vm.DrainLive, Cold},
	} {
		v := guest("x", a, c.vm)
		i := Decide(v, []node.Node{a, b}, c.policy, "")
		if i.Action != c.want || i.Target.Name != "b" || i.Action == Live && i.First(v.Rests()) != Moving {
			t.Errorf("%s: %+v", name, i)
		}
	}
	// one that has no room for it while it runs has none after it was started again
	b.Used.MemoryBytes = 64 * unit.GiB
	if i := Decide(guest("x", a), []node.Node{a, b}, vm.DrainLive, ""); i.Action != Block || !strings.Contains(i.Why, "memory free") {
		t.Errorf("%+v", i)
	}
}

// Ten VMs do not plan onto the same last gigabytes, who starts first comes first, and
// where one goes nothing is taken twice.
func TestPlanTakesRoom(t *testing.T) {
	a, b, c := host("a", 64*unit.GiB), host("b", 4*unit.GiB), host("c", 3*unit.GiB)
	b.Used.MemoryBytes = unit.GiB
	var vms []vm.View
	for n := range 10 {
		vms = append(vms, guest(fmt.Sprintf("vm-%d", n), a, func(v *vm.View) { v.Intent.Policy.StartOrder = 10 - n }))
	}
	p := PlanOf(vms, []node.Node{a, b, c}, place(a), vm.DrainCold)
	onto := map[string]int{}
	for _, i := range p.Items {
		onto[i.Target.Name]++
	}
	if onto["b"] != 3 || onto["c"] != 3 || onto[""] != 4 || onto["a"] != 0 {
		t.Errorf("%v", onto)
	}
	for n, i := range p.Items {
		if want := fmt.Sprintf("vm-%d", 9-n); i.Name != want || (i.Action == Block) != (n >= 6) {
			t.Errorf("%d: %+v, want %s", n, i, want)
		}
	}
	err := p.Fits()
	if e := errs.As(err); !errs.Is(err, errs.InUse) || len(e.Blockers) != 4 || !strings.Contains(e.Blockers[0], "vm-3: no node fits: ") || !strings.Contains(e.Blockers[0], "memory free") {
		t.Errorf("%v %v", err, e.Blockers)
	}
	if vms[0].Intent.Name != "vm-0" || b.Used.MemoryBytes != unit.GiB {
		t.Error("the snapshot was changed")
	}
}

// What the request says stands before what the VMs have.
func TestPlanPolicies(t *testing.T) {
	a, b := host("a", 64*unit.GiB), host("b", 64*unit.GiB)
	vms := []vm.View{guest("cold", a, policy(vm.DrainCold)), guest("refuse", a, policy(vm.DrainRefuse)), guest("stop", a, policy(vm.DrainStop))}
	actions := func(p Plan) (out string) {
		for _, i := range p.Items {
			out += i.Name + "=" + string(i.Action) + " "
		}
		return out
	}
	if got := actions(PlanOf(vms, []node.Node{a, b}, place(a), "")); got != "cold=cold refuse=block stop=stop " {
		t.Error(got)
	}
	if got := actions(PlanOf(vms, []node.Node{a, b}, place(a), vm.DrainStop)); got != "cold=stop refuse=stop stop=stop " {
		t.Error(got)
	}
}

// What follows what.
func TestAfter(t *testing.T) {
	for _, c := range []struct {
		item Item
		done Stage
		well bool
		next Stage
		end  State
	}{
		{Item{Action: Live, Runs: true}, Moving, true, "", Done},
		{Item{Action: Live, Runs: true}, Moving, false, "", Failed},
		{Item{Action: Cold, Runs: true}, Stopping, true, Moving, Running},
		{Item{Action: Cold, Runs: true}, Stopping, false, "", Failed},
		{Item{Action: Cold, Runs: true}, Moving, true, Starting, Running},
		{Item{Action: Cold, Runs: true}, Moving, false, Restoring, Running},
		{Item{Action: Cold, Runs: true}, Restoring, true, "", Failed},
		{Item{Action: Cold, Runs: true}, Restoring, false, "", Failed},
		{Item{Action: Cold, Runs: true}, Starting, true, "", Done},
		{Item{Action: Cold, Runs: true}, Starting, false, "", Failed},
		{Item{Action: Cold}, Stopping, true, Moving, Running},
		{Item{Action: Cold}, Moving, true, "", Done},
		{Item{Action: Cold}, Moving, false, "", Failed},
		{Item{Action: Stop, Runs: true}, Stopping, true, "", Done},
		{Item{Action: Stop, Runs: true}, Stopping, false, "", Failed},
		{Item{Action: Start}, Starting, true, "", Done},
		{Item{Action: Start}, Starting, false, "", Failed},
	} {
		if next, end := c.item.After(c.done, c.well); next != c.next || end != c.end {
			t.Errorf("%+v after %s %v: %q %s", c.item, c.done, c.well, next, end)
		}
	}
}

func TestValidate(t *testing.T) {
	r := Request{}
	if err := r.Validate(); err != nil || r.Parallel != DefaultParallel {
		t.Errorf("%+v %v", r, err)
	}
	for _, r := range []Request{{Policy: "warm"}, {Parallel: 33}, {Parallel: -1}, {Grace: -1}, {Grace: MaxGrace + 1}, {Reason: strings.Repeat("x", 501)}} {
		if r.Validate() == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
}

// What is being worked on keeps its room of where it goes, once.
func TestExpect(t *testing.T) {
	a, b := host("a", 64*unit.GiB), host("b", 64*unit.GiB)
	v := guest("x", a)
	there := guest("x", b)
	for name, c := range map[string]struct {
		item   Item
		vm     vm.View
		memory int64
		disk   int64
	}{
		"Stopping":    {Item{Action: Cold, Runs: true, Stage: Stopping}, v, unit.GiB, 10 * unit.GiB},
		"Moving":      {Item{Action: Cold, Runs: true, Stage: Moving}, v, unit.GiB, 0},
		"Starting":    {Item{Action: Cold, Runs: true, Stage: Starting}, guest("x", b, stopped), unit.GiB, 0},
		"Started":     {Item{Action: Cold, Runs: true, Stage: Starting}, there, 0, 0},
		"MovesAtRest": {Item{Action: Cold, Stage: Moving}, guest("x", a, stopped), 0, 0},
		"Live":        {Item{Action: Live, Runs: true, Stage: Moving}, v, 0, 0},
	} {
		nodes := []node.Node{a, b}
		c.item.Target = place(b)
		Expect(nodes, c.item, c.vm)
		if u := nodes[1].Used; u.MemoryBytes != c.memory || u.DiskBytes != c.disk {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

// A node gets back what is as its drain left it, and nothing else.
func TestPlanRefill(t *testing.T) {
	a, b, c := host("a", 64*unit.GiB), host("b", 64*unit.GiB), host("c", 64*unit.GiB)
	moved := Item{Action: Cold, Runs: true, Target: place(b)}
	off := Item{Action: Stop, Runs: true}
	for name, k := range map[string]struct {
		taken Taken
		want  Action
		why   string
	}{
		"Moved":      {Taken{moved, guest("x", b)}, Cold, ""},
		"MovedOn":    {Taken{moved, guest("x", c)}, Leave, "moved on"},
		"There":      {Taken{moved, guest("x", a)}, Leave, "it is there"},
		"Refuses":    {Taken{moved, guest("x", b, policy(vm.DrainRefuse))}, Cold, ""},
		"Stopped":    {Taken{off, guest("x", a, stopped)}, Start, ""},
		"Started":    {Taken{off, guest("x", a)}, Leave, "started since"},
		"StoppedOff": {Taken{off, guest("x", b, stopped)}, Leave, "moved away"},
		"DidNotRun":  {Taken{Item{Action: Stop}, guest("x", a, stopped)}, Leave, "did not run"},
		"Nowhere":    {Taken{moved, guest("x", b, func(v *vm.View) { v.Intent.NodeID = nil })}, Leave, "no node"},
	} {
		p := PlanRefill([]Taken{k.taken}, []node.Node{a, b, c}, place(a), "")
		if i := p.Items[0]; i.Action != k.want || !strings.Contains(i.Why, k.why) || i.Moves() && i.Target.Name != "a" {
			t.Errorf("%s: %+v", name, i)
		}
	}
}
