package drain

import (
	"cmp"
	"slices"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
)

// Taken is what a drain did with a VM, and the VM as it is now.
type Taken struct {
	Item Item
	VM   vm.View
}

// PlanRefill plans how a node gets back what drains took from it: by the order in which
// hosts start VMs, each taking its room before the next one looks.
func PlanRefill(taken []Taken, nodes []node.Node, to migration.Place, policy vm.DrainPolicy) Plan {
	taken, nodes = slices.Clone(taken), slices.Clone(nodes)
	slices.SortFunc(taken, func(a, b Taken) int {
		x, y := a.VM.Intent, b.VM.Intent
		return cmp.Or(cmp.Compare(x.Policy.StartOrder, y.Policy.StartOrder), cmp.Compare(x.Name, y.Name))
	})
	p := Plan{Node: to}
	for _, t := range taken {
		i := DecideRefill(t, nodes, to, policy)
		Take(nodes, i, t.VM)
		p.Items = append(p.Items, i)
	}
	return p
}

// DecideRefill says how a node gets back one VM. What somebody decided otherwise since is
// left alone.
func DecideRefill(t Taken, nodes []node.Node, to migration.Place, policy vm.DrainPolicy) Item {
	v := t.VM
	i := Item{VM: v.Intent.ID, Name: v.Intent.Name, Action: Leave, State: Left}
	on := v.Intent.NodeID
	switch {
	case on == nil:
		i.Why = "it is on no node"
	case t.Item.Moves() && *on == to.Node:
		i.Why = "it is there"
	case t.Item.Moves() && *on != t.Item.Target.Node:
		i.Why = "it was moved on since"
	case t.Item.Moves():
		return Decide(v, nodes, moves(cmp.Or(policy, v.Intent.Policy.Drain)), to.Name)
	case *on != to.Node:
		i.Why = "it was moved away since"
	case !v.Rests():
		i.Why = "it was started since"
	case t.Item.Runs:
		i.Action, i.State, i.Runs = Start, Queued, true
	default:
		i.Why = "it did not run"
	}
	return i
}

// moves is a policy by which a VM moves.
func moves(p vm.DrainPolicy) vm.DrainPolicy {
	if p == vm.DrainCold {
		return p
	}
	return vm.DrainLive
}
