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
	Predicted
	// Notes say what will be another for the VM, or lost.
	Notes []string
}

// Predicted is a Prediction, where it stands within something else.
type Predicted = Prediction

// Fits refuses, with errs.NoNodeFits, what has nowhere to go.
func (p Plan) Fits() error {
	if len(p.Ranked) > 0 {
		return nil
	}
	return errs.New(errs.NoNodeFits, "%s", scheduler.Explain(p.Rejected))
}

// Target is the node that it would go to.
func (p Plan) Target() Place { return Place{Node: p.Ranked[0].Node, Name: p.Ranked[0].Name} }

// PlanOf plans the move of a VM, which vm.Decide has let pass, between nodes as they
// are. to is the name of the node asked for, or empty. It refuses a VM that is on no
// node, or already where it is to go.
func PlanOf(v vm.View, nodes []node.Node, to string) (Plan, error) {
	source, err := sourceOf(v, nodes)
	if err != nil {
		return Plan{}, err
	}
	if to == source.Name {
		return Plan{}, errs.New(errs.InvalidState, "VM %q is on node %s already", v.Intent.Name, to).
			At(errs.Field{Pointer: "/node", Message: "is where the VM is", Got: to})
	}
	if err := vm.Moves(v); err != nil {
		return Plan{}, err
	}
	p := Plan{Kind: Cold, Source: Place{Node: source.ID, Name: source.Name}, Predicted: Prediction{Bytes: v.DiskBytes()}, Notes: notes(v)}
	if suspended(v) {
		p.Bytes += v.Intent.MemoryBytes
	}
	placed, rejected, _ := scheduler.Place(nodes, scheduler.Request{
		DiskBytes: v.DiskBytes(), NodeName: to, Simulated: &source.Simulated,
		Hardware: v.Intent.Hardware, Limits: v.Limited(), Bridges: v.Bridges(),
	})
	p.Rejected = rejected
	for _, r := range placed.Ranked {
		at := slices.IndexFunc(nodes, func(n node.Node) bool { return n.ID == r.Node })
		if why := unfit(v, source, nodes[at]); len(why) > 0 {
			p.Rejected = append(p.Rejected, scheduler.Rejected{Node: r.Node, Name: r.Name, Reasons: why})
			continue
		}
		p.Ranked = append(p.Ranked, r)
	}
	return p, nil
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
func unfit(v vm.View, source, n node.Node) (why []string) {
	in := v.Intent
	switch {
	case n.ID == source.ID:
		return []string{"has it already"}
	case in.CPUs > n.Capacity.CPUs:
		why = append(why, fmt.Sprintf("has %d CPUs in all, %d needed", n.Capacity.CPUs, in.CPUs))
	}
	if in.MemoryBytes > n.Capacity.MemoryBytes {
		why = append(why, fmt.Sprintf("has %s memory in all, %s needed", unit.FormatBytes(n.Capacity.MemoryBytes), unit.FormatBytes(in.MemoryBytes)))
	}
	if suspended(v) {
		why = append(why, cannotGoOn(in, source.Inventory, n.Inventory)...)
	}
	return why
}

// cannotGoOn tells why a memory that was saved on one host cannot be taken up on another.
func cannotGoOn(in vm.Intent, saved, here node.Inventory) (why []string) {
	if saved.Acceleration != here.Acceleration {
		why = append(why, fmt.Sprintf("runs guests under %s, and its memory was saved under %s", here.Acceleration, saved.Acceleration))
	}
	if Older(here.HypervisorVersion, saved.HypervisorVersion) {
		why = append(why, fmt.Sprintf("has %s %s, and its memory was saved by %s: the hypervisor may be newer, not older", here.Hypervisor, here.HypervisorVersion, saved.HypervisorVersion))
	}
	if in.Hardware.CPU == vm.CPUHost && saved.CPUModel != here.CPUModel {
		why = append(why, fmt.Sprintf("has another processor (%s), and its memory was saved on %s", here.CPUModel, saved.CPUModel))
	}
	return why
}

// notes say what is another afterwards.
func notes(v vm.View) (out []string) {
	forwards := 0
	for _, n := range v.NICs {
		forwards += len(n.Forwards)
		if n.Bridge != "" {
			out = append(out, fmt.Sprintf("it joins the bridge %s of its new node: whether that is the same network is for who made them to know", n.Bridge))
		}
	}
	if forwards > 0 {
		out = append(out, fmt.Sprintf("%d ports that are forwarded to it are ports of its new node from then on, and it does not start while one is taken there", forwards))
	}
	return append(out, "the log of its last run stays behind and is removed")
}
