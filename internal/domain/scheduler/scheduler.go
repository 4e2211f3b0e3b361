// Package scheduler decides where a VM goes: a pure function from a snapshot of
// the nodes to a plan that can be printed, or to a reason per node.
//
// Filters say no with a reason; scores prefer among those that remain. The
// executor re-checks at commit, under the node's row lock, and may refuse: a
// plan is a proposal. Constraints (affinity, zones, devices) become further
// filters and scores in the tables below.
package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Request is what needs a place.
type Request struct {
	CPUs        int
	MemoryBytes int64
	DiskBytes   int64
	// Hardware is what it needs; what is empty is any.
	Hardware vm.Hardware
	// NodeName restricts the choice to one node when it is not empty.
	NodeName string
	// Simulated: VMs of simulated nodes and real ones never mix; a nil pointer
	// takes either.
	Simulated *bool
	// Limits are the kinds of limits that the node has to be able to set.
	Limits []string
	// Bridges that the node has to let guests onto.
	Bridges []string
	// Pools are the storage pools that the node has to have, by name, each with its id.
	Pools map[string]id.ID
}

// Plan is the choice and its reasons, best first.
type Plan struct {
	Node   id.ID
	Ranked []Ranked
}

// Ranked is a node that fits, with what it was preferred by.
type Ranked struct {
	Node   id.ID
	Name   string
	Score  float64 // the mean of Scores, higher is better
	Scores []Score
}

// Score is one preference's opinion: 1 is an empty node, 0 a full one, below 0
// one that could not run all its VMs at once.
type Score struct {
	Rule  string
	Value float64
}

// Rejected is a node that does not fit and every rule that says so.
type Rejected struct {
	Node    id.ID
	Name    string
	Reasons []string
}

type filter struct {
	rule string
	// room: is it about what the node has left, rather than whether it is suitable?
	room bool
	// no gives the reason why the node does not fit; empty when it does.
	no func(node.Node, Request) string
}

var filters = []filter{
	{"chosen", false, func(n node.Node, r Request) string {
		if r.NodeName != "" && r.NodeName != n.Name {
			return "is not the node asked for, " + r.NodeName
		}
		return ""
	}},
	{"takes", false, func(n node.Node, _ Request) string {
		_, why := n.Takes()
		return why
	}},
	{"simulated", false, func(n node.Node, r Request) string {
		if r.Simulated == nil || *r.Simulated == n.Simulated {
			return ""
		}
		return "is " + map[bool]string{true: "simulated", false: "real"}[n.Simulated]
	}},
	{"limits", false, func(n node.Node, r Request) string { return n.CannotLimit(r.Limits) }},
	{"machine", true, machine},
	{"processor", true, processor},
	{"bridges", false, func(n node.Node, r Request) string { return n.CannotJoin(r.Bridges) }},
	{"pools", true, func(n node.Node, r Request) string { return n.CannotUse(r.Pools) }},
	{"firmware", true, firmware},
	{"cpu", true, func(n node.Node, r Request) string {
		return lacks("CPUs", int64(r.CPUs), int64(n.Capacity.CPUs), int64(n.Used.CPUs), plain)
	}},
	{"memory", true, func(n node.Node, r Request) string {
		return lacks("memory", r.MemoryBytes, n.Capacity.MemoryBytes, n.Used.MemoryBytes, unit.FormatBytes)
	}},
	{"disk", true, func(n node.Node, r Request) string {
		return lacks("disk", r.DiskBytes, n.Capacity.DiskBytes, n.Used.DiskBytes, unit.FormatBytes)
	}},
}

// machine: a node that did not say what it has is believed to have it.
func machine(n node.Node, r Request) string {
	has := n.Inventory.MachineTypes
	if r.Hardware.Type == "" || len(has) == 0 || slices.Contains(has, r.Hardware.Type) || r.Hardware.Type == vm.MachineQ35 && slices.ContainsFunc(has, vm.IsQ35) {
		return ""
	}
	return fmt.Sprintf("has no machine type %s (its newest is %s)", r.Hardware.Type, has[0])
}

func processor(n node.Node, r Request) string {
	has := n.Inventory.CPUModels
	switch {
	case r.Hardware.CPU == "" || len(has) == 0 || slices.Contains(has, r.Hardware.CPU):
		return ""
	case r.Hardware.CPU == vm.CPUHost:
		return fmt.Sprintf("cannot give its own processor (CPU model %s) to guests: they run under %s", r.Hardware.CPU, n.Inventory.Acceleration)
	default:
		return fmt.Sprintf("does not offer CPU model %s under %s", r.Hardware.CPU, n.Inventory.Acceleration)
	}
}

// firmware: a node that did not say what it has is of before there was a choice.
func firmware(n node.Node, r Request) string {
	switch is := r.Hardware.Firmware; {
	case is == "" || is == vm.FirmwareBIOS:
		return ""
	case slices.Contains(n.Inventory.Firmware, is):
		return vm.CannotStart(r.Hardware, n.Inventory.Acceleration)
	}
	return fmt.Sprintf("has no firmware %s (package ovmf)", r.Hardware.Firmware)
}

func plain(n int64) string { return fmt.Sprint(n) }

func lacks(what string, want, capacity, used int64, show func(int64) string) string {
	free := capacity - used
	if want == 0 || want <= free {
		return ""
	}
	return fmt.Sprintf("has %s %s free of %s, %s needed", show(max(free, 0)), what, show(capacity), show(want))
}

// scores prefer the node that stays emptier when all its VMs run: spreading keeps
// the damage of a lost node small, and a stopped VM whose disks are there can
// start nowhere else.
var scores = []struct {
	rule  string
	value func(node.Node, Request) float64
}{
	{"free cpu", func(n node.Node, r Request) float64 {
		return share(int64(n.Capacity.CPUs-n.Committed.CPUs-r.CPUs), int64(n.Capacity.CPUs))
	}},
	{"free memory", func(n node.Node, r Request) float64 {
		return share(n.Capacity.MemoryBytes-n.Committed.MemoryBytes-r.MemoryBytes, n.Capacity.MemoryBytes)
	}},
	{"free disk", func(n node.Node, r Request) float64 {
		return share(n.Capacity.DiskBytes-n.Used.DiskBytes-r.DiskBytes, n.Capacity.DiskBytes)
	}},
}

func share(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// Place chooses a node. When none fits, the plan is empty and every node is
// listed with its reasons. Nodes of equal score are taken in order of id, so
// that the same snapshot always gives the same plan.
func Place(nodes []node.Node, r Request) (Plan, []Rejected, bool) {
	var plan Plan
	var out []Rejected
	for _, n := range nodes {
		if reasons := reject(n, r); len(reasons) > 0 {
			out = append(out, Rejected{Node: n.ID, Name: n.Name, Reasons: reasons})
			continue
		}
		plan.Ranked = append(plan.Ranked, rank(n, r))
	}
	slices.SortFunc(plan.Ranked, func(a, b Ranked) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Node.String(), b.Node.String()))
	})
	if len(plan.Ranked) == 0 {
		return Plan{}, out, false
	}
	plan.Node = plan.Ranked[0].Node
	return plan, out, true
}

func reject(n node.Node, r Request) (reasons []string) {
	for _, f := range filters {
		if why := f.no(n, r); why != "" {
			reasons = append(reasons, why)
		}
	}
	return reasons
}

// Room tells what a node lacks for a VM whose disks are there already, so that it
// can run nowhere else; empty when it has room.
func Room(n node.Node, r Request) (reasons []string) {
	for _, f := range filters {
		if !f.room {
			continue
		}
		if why := f.no(n, r); why != "" {
			reasons = append(reasons, why)
		}
	}
	return reasons
}

func rank(n node.Node, r Request) Ranked {
	k := Ranked{Node: n.ID, Name: n.Name}
	for _, s := range scores {
		v := s.value(n, r)
		k.Scores = append(k.Scores, Score{Rule: s.rule, Value: v})
		k.Score += v / float64(len(scores))
	}
	return k
}

// Explain puts a refusal into one sentence; the full list goes along with it.
func Explain(rejected []Rejected) string {
	if len(rejected) == 0 {
		return "there is no node: join one with 'novacron node token'"
	}
	parts := make([]string, 0, len(rejected))
	for i, r := range rejected {
		if i == 3 && len(rejected) > 4 {
			parts = append(parts, fmt.Sprintf("and %d more", len(rejected)-i))
			break
		}
		parts = append(parts, r.Name+" "+strings.Join(r.Reasons, " and "))
	}
	return "no node fits: " + strings.Join(parts, "; ")
}
