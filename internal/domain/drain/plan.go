package drain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// mostBlockers of a refusal are named.
const mostBlockers = 20

// Plan says what becomes of each VM of a node, in the order in which it is done. It can
// be printed, and is the same for the same snapshot.
type Plan struct {
	Node  migration.Place
	Items []Item
}

// Blocked are those with which nothing can be done.
func (p Plan) Blocked() (out []Item) {
	for _, i := range p.Items {
		if i.Action == Block {
			out = append(out, i)
		}
	}
	return out
}

// Fits refuses, with errs.InUse, a plan that leaves VMs where they are, and names each
// with why.
func (p Plan) Fits() error {
	blocked := p.Blocked()
	if len(blocked) == 0 {
		return nil
	}
	e := errs.New(errs.InUse, "node %q cannot be drained: %d of its %d VMs stand against it; settle that, or ask for what can be done (partial)",
		p.Node.Name, len(blocked), len(p.Items))
	for _, i := range blocked[:min(len(blocked), mostBlockers)] {
		e = e.BlockedBy(i.Name + ": " + i.Why)
	}
	return e
}

// PlanOf plans what becomes of VMs that are on a node. Each takes its room of where it
// goes before the next one looks, by the order in which a host starts them: who comes
// first there matters most. policy, unless empty, stands before what they have.
func PlanOf(vms []vm.View, nodes []node.Node, from migration.Place, policy vm.DrainPolicy) Plan {
	vms, nodes = slices.Clone(vms), slices.Clone(nodes)
	slices.SortFunc(vms, func(a, b vm.View) int {
		return cmp.Or(cmp.Compare(a.Intent.Policy.StartOrder, b.Intent.Policy.StartOrder), cmp.Compare(a.Intent.Name, b.Intent.Name))
	})
	p := Plan{Node: from}
	for _, v := range vms {
		i := Decide(v, nodes, policy.Or(v.Intent.Policy.Drain), "")
		Take(nodes, i, v)
		p.Items = append(p.Items, i)
	}
	return p
}

// Take counts on a node what a VM takes that is to go there.
func Take(nodes []node.Node, i Item, v vm.View) {
	if n := target(nodes, i); n != nil {
		n.Used.DiskBytes += v.DiskBytes()
		n.Committed.CPUs, n.Committed.MemoryBytes = n.Committed.CPUs+v.Intent.CPUs, n.Committed.MemoryBytes+v.Intent.MemoryBytes
		i.takeMemory(n, v)
	}
}

// Expect counts on a node what a VM that is being worked on will take there, and that
// nothing counts yet.
func Expect(nodes []node.Node, i Item, v vm.View) {
	n := target(nodes, i)
	switch {
	case n == nil || i.Action == Live: // its migration has counted it
	case i.Stage == Stopping:
		Take(nodes, i, v)
	case !v.Intent.Reserved || v.Intent.NodeID == nil || *v.Intent.NodeID != n.ID:
		i.takeMemory(n, v)
	}
}

func target(nodes []node.Node, i Item) *node.Node {
	at := slices.IndexFunc(nodes, func(n node.Node) bool { return n.ID == i.Target.Node })
	if !i.Moves() || at < 0 {
		return nil
	}
	return &nodes[at]
}

func (i Item) takeMemory(n *node.Node, v vm.View) {
	if i.Runs {
		n.Used.CPUs, n.Used.MemoryBytes = n.Used.CPUs+v.Intent.CPUs, n.Used.MemoryBytes+v.Intent.MemoryBytes
	}
}

// Decide says what becomes of one VM under a policy; to, unless empty, names the node
// that it is to go to. A job that holds it is waited for, and is no reason here.
func Decide(v vm.View, nodes []node.Node, policy vm.DrainPolicy, to string) Item {
	i := Item{VM: v.Intent.ID, Name: v.Intent.Name, Runs: runs(v), State: Queued}
	if policy == vm.DrainRefuse {
		return i.block("its drain policy is refuse")
	}
	if j := v.Job; j != nil && j.Attention {
		return i.block(fmt.Sprintf("job %s (%s) stopped half-way and holds it: retry that", j.ID, j.Kind))
	} else if j != nil {
		i.Why = fmt.Sprintf("job %s (%s) holds it: its turn comes after that", j.ID, j.Kind)
		v.Job = nil
	}
	if policy == vm.DrainStop {
		return i.stops(v)
	}
	if _, err := vm.Decide(v, vm.Migrate); err != nil {
		return i.block(errs.As(err).Message)
	}
	if policy == vm.DrainCold {
		return i.Place(v, nodes, to)
	}
	return i.goes(v, nodes, to)
}

// goes moves while it runs where that can be done.
func (i Item) goes(v vm.View, nodes []node.Node, to string) Item {
	live, err := migration.PlanOf(v, nodes, to)
	if err == nil {
		err = live.Fits()
	}
	if err == nil && live.Kind == migration.Live {
		i.Action, i.Target = Live, live.Target()
		return i
	}
	cold := i.Place(v, nodes, to)
	if err != nil && cold.Action == Cold && i.Runs {
		cold.Why = join(cold.Why, "it does not move while it runs: "+errs.As(err).Message)
	}
	return cold
}

// runs tells whether it executes, or is to: its restart policy would start it again.
func runs(v vm.View) bool {
	return v.HasProcess() || v.Intent.PowerOn && v.Intent.Policy.Restart.OrNever() != vm.RestartNever
}

func (i Item) block(why string) Item {
	i.Action, i.State, i.Target, i.Why = Block, Left, migration.Place{}, why
	return i
}

// stops: what has no process is left.
func (i Item) stops(v vm.View) Item {
	if v.Rests() {
		i.Action, i.State, i.Why = Leave, Left, "it does not run"
		return i
	}
	if _, err := vm.Decide(v, vm.Stop); err != nil {
		return i.block(errs.As(err).Message)
	}
	i.Action = Stop
	return i
}

// Place looks for a node for a VM that moves without executing, and has room for all that
// it takes there; to, unless empty, is the only one.
func (i Item) Place(v vm.View, nodes []node.Node, to string) Item {
	if vm.Appear(v).State == vm.Paused {
		return i.block("it is paused: its guest cannot shut down in order; resume or suspend it first")
	}
	if !v.Rests() && (v.Observed == nil || v.Observed.Phase != vm.PhaseSuspended) {
		v = atRest(v)
	}
	p, err := migration.PlanOf(v, nodes, to)
	if err != nil {
		return i.block(errs.As(err).Message)
	}
	rejected := p.Rejected
	for _, r := range p.Ranked {
		at := slices.IndexFunc(nodes, func(n node.Node) bool { return n.ID == r.Node })
		if why := crowded(nodes[at], v, i.Runs); len(why) > 0 {
			rejected = append(rejected, scheduler.Rejected{Node: r.Node, Name: r.Name, Reasons: why})
			continue
		}
		i.Action, i.Target = Cold, migration.Place{Node: r.Node, Name: r.Name}
		return i
	}
	return i.block(scheduler.Explain(rejected))
}

// crowded tells why a VM that is to run does not on a node that takes its disks.
func crowded(n node.Node, v vm.View, runs bool) (why []string) {
	if !runs {
		return nil
	}
	if free := n.Capacity.CPUs - n.Used.CPUs; v.Intent.CPUs > free {
		why = append(why, fmt.Sprintf("has %d CPUs free of %d, %d needed", max(free, 0), n.Capacity.CPUs, v.Intent.CPUs))
	}
	if free := n.Capacity.MemoryBytes - n.Used.MemoryBytes; v.Intent.MemoryBytes > free {
		why = append(why, fmt.Sprintf("has %s memory free of %s, %s needed", unit.FormatBytes(max(free, 0)), unit.FormatBytes(n.Capacity.MemoryBytes), unit.FormatBytes(v.Intent.MemoryBytes)))
	}
	return why
}

// atRest is a VM as it is after it was shut down.
func atRest(v vm.View) vm.View {
	v.Intent.PowerOn, v.Intent.Reserved = false, false
	if v.Observed != nil {
		o := *v.Observed
		o.Epoch, o.Phase = max(o.Epoch, v.Intent.Epoch), vm.PhaseExited
		v.Observed = &o
	}
	return v
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
