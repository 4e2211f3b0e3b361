package migration

import (
	"fmt"
	"slices"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Plan is where a VM would go, and what that takes. It can be printed, and is the same
// for the same snapshot.
type Plan struct {
	Kind   Kind
	Source Place
	// Ranked are the nodes that suit, best first; Rejected says of each other why not.
	Ranked   []scheduler.Ranked
	Rejected []scheduler.Rejected
	Prediction
	// Options of a live one, complete.
	Options Options
	// Disks are the VM's, in order of their slots. Those in a storage pool stay where they
	// are, for both nodes have it.
	Disks []vm.Volume
	// Reach is how its nodes speak with each other, if somebody has looked.
	Reach Reach
	// Notes say what will be another for the VM, or lost.
	Notes []string
}

// Fits refuses, with errs.NoNodeFits, what has nowhere to go.
func (p Plan) Fits() error {
	if len(p.Ranked) > 0 {
		return nil
	}
	return errs.New(errs.NoNodeFits, "%s", scheduler.Explain(p.Rejected))
}

// Target is the node that it would go to.
func (p Plan) Target() Place { return Place{Node: p.Ranked[0].Node, Name: p.Ranked[0].Name} }

// PlanOf is PlanFor for who asks for a node only, by its name, or for whichever suits.
func PlanOf(v vm.View, nodes []node.Node, to string) (Plan, error) {
	return PlanFor(v, nodes, Request{Node: to}, Changes{})
}

// PlanFor plans the move of a VM, which vm.Decide has let pass, between nodes as they
// are. The request names its node by name, if it does. Changes are what is known of how
// fast its guest changes memory. It refuses a VM
// that is on no node, already where it is to go, or does not move in the way asked for.
func PlanFor(v vm.View, nodes []node.Node, r Request, changes Changes) (Plan, error) {
	source, err := sourceOf(v, nodes)
	if err != nil {
		return Plan{}, err
	}
	if r.Node == source.Name {
		return Plan{}, errs.New(errs.InvalidState, "VM %q is on node %s already", v.Intent.Name, r.Node).
			At(errs.Field{Pointer: "/node", Message: "is where the VM is", Got: r.Node})
	}
	if err := vm.Moves(v); err != nil {
		return Plan{}, err
	}
	p := Plan{Source: Place{Node: source.ID, Name: source.Name}, Disks: v.Volumes, Notes: notes(v, v.Executes())}
	if p.Kind, err = kindOf(v, source, r.Kind); err != nil {
		return Plan{}, err
	}
	place(&p, v, nodes, source, r.Node)
	if p.Kind == Warm {
		p.Options = r.Options.warmly(r.Profile)
		predictWarm(&p, v, nodes, source)
		explainWarm(&p, v.Intent.MemoryBytes)
		return p, nil
	}
	if p.Kind == Live {
		p.Options = r.Options.complete(r.Profile)
	}
	predict(&p, v, nodes, source, changes)
	if p.Kind == Live {
		p.Options.Timeout = p.Options.GiveUp(p.Bytes)
	}
	if p.Kind == Live && halted(source.Inventory) {
		p.Options.Patience = patientWith(r.Options.Patience, p.Downtime)
		explainHalt(&p, source.Inventory)
		return p, nil
	}
	explain(&p, r)
	return p, nil
}

// kindOf decides how a VM moves, or tells why not as asked.
func kindOf(v vm.View, source node.Node, asked Kind) (Kind, error) {
	state, name := vm.Appear(v).State, v.Intent.Name
	switch {
	case !v.Executes() && asked.Executing():
		return "", refusal("cannot migrate %q %s: it is %s, and nothing of it executes; leave the kind out", name, asked, state)
	case !v.Executes():
		return Cold, nil
	case asked == Cold:
		return "", refusal("cannot migrate %q cold: it is %s; stop it first, or leave the kind out", name, state)
	case !source.Inventory.LiveMigration:
		return "", errs.New(errs.InvalidState, "cannot migrate %q while it is %s: its node %s does not move guests that execute; suspend it first, and resume it afterwards to go on where it was",
			name, state, source.Name)
	case asked == Warm && !source.Inventory.WarmMigration:
		return "", refusal("cannot migrate %q warm: its node %s does not copy disks in rounds", name, source.Name)
	case asked == Warm:
		return Warm, nil
	}
	return Live, nil
}

func refusal(format string, args ...any) error {
	e := errs.New(errs.InvalidState, format, args...)
	return e.At(errs.Field{Pointer: "/kind", Message: "is not how it moves as it is"})
}

// place ranks the nodes.
func place(p *Plan, v vm.View, nodes []node.Node, source node.Node, to string) {
	want := scheduler.Request{
		DiskBytes: v.DiskBytes(), NodeName: to, Simulated: &source.Simulated,
		Hardware: v.Intent.Hardware, Limits: v.Limited(), Bridges: v.Bridges(), Pools: v.Pools(),
	}
	if p.Kind.Executing() {
		want.CPUs, want.MemoryBytes = v.Intent.CPUs, v.Intent.MemoryBytes
	}
	placed, rejected, _ := scheduler.Place(nodes, want)
	p.Rejected = rejected
	for _, r := range placed.Ranked {
		at := slices.IndexFunc(nodes, func(n node.Node) bool { return n.ID == r.Node })
		if why := unfit(p.Kind, v, source, nodes[at]); len(why) > 0 {
			p.Rejected = append(p.Rejected, scheduler.Rejected{Node: r.Node, Name: r.Name, Reasons: why})
			continue
		}
		p.Ranked = append(p.Ranked, r)
	}
}

func sourceOf(v vm.View, nodes []node.Node) (node.Node, error) {
	if v.Intent.NodeID != nil {
		for _, n := range nodes {
			if n.ID == *v.Intent.NodeID {
				return n, nil
			}
		}
	}
	return node.Node{}, errs.New(errs.InvalidState, "VM %q is on no node", v.Intent.Name)
}

func suspended(v vm.View) bool { return v.Observed != nil && v.Observed.Phase == vm.PhaseSuspended }

// unfit tells why a node that would take the VM if it were new does not take this one.
func unfit(kind Kind, v vm.View, source, n node.Node) (why []string) {
	in := v.Intent
	switch {
	case n.ID == source.ID:
		return []string{"has it already"}
	case kind.Executing() && !n.Inventory.LiveMigration:
		return []string{"does not take guests that execute"}
	case kind == Warm && !n.Inventory.WarmMigration:
		return []string{"does not take disks in rounds"}
	case kind.Executing():
		return cannotGoOn(in, source.Inventory, n.Inventory, "it runs")
	case in.CPUs > n.Capacity.CPUs:
		why = append(why, fmt.Sprintf("has %d CPUs in all, %d needed", n.Capacity.CPUs, in.CPUs))
	}
	if in.MemoryBytes > n.Capacity.MemoryBytes {
		why = append(why, fmt.Sprintf("has %s memory in all, %s needed", unit.FormatBytes(n.Capacity.MemoryBytes), unit.FormatBytes(in.MemoryBytes)))
	}
	if suspended(v) {
		why = append(why, cannotGoOn(in, source.Inventory, n.Inventory, "its memory was saved")...)
	}
	return why
}

// notes say what is another afterwards.
func notes(v vm.View, live bool) (out []string) {
	forwards, user := 0, 0
	for _, n := range v.NICs {
		forwards += len(n.Forwards)
		if n.Bridge == "" {
			user++
			continue
		}
		out = append(out, fmt.Sprintf("it joins the bridge %s of its new node: whether that is the same network is for who made them to know", n.Bridge))
	}
	if live && user > 0 {
		out = append(out, fmt.Sprintf("connections through its %d user-mode interfaces end when it moves: such a network is its node's own", user))
	}
	if forwards > 0 {
		out = append(out, fmt.Sprintf("%d ports that are forwarded to it are ports of its new node from then on, and it does not %s while one is taken there", forwards, does(live)))
	}
	if live {
		return append(out, "the log of its console until then stays behind and is removed; who looks at its console or its screen has to open it anew")
	}
	return append(out, "the log of its last run stays behind and is removed")
}

func does(live bool) string {
	if live {
		return "move"
	}
	return "start"
}
