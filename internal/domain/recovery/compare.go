package recovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
)

// comparison is a Compare under way.
type comparison struct {
	Snapshot
	plan  Plan
	known map[id.ID]vm.View
	names map[string]bool
	// volumes that the database knows
	volumes map[id.ID]bool
	// all that answered, by VM: the node it is placed on stands first
	held map[id.ID]Holding
	// lost are the VMs that the plan loses
	lost map[id.ID]bool
	// claims counts the nodes that have a VM
	claims map[id.ID]int
	// moved are VMs that went to another node since
	moved map[id.ID]id.ID
	// waits: there are nodes that have not told what they hold
	waits map[id.ID]bool
}

// Compare makes the plan. The same snapshot always gives the same plan, but for the
// ids of what is made anew.
func Compare(s Snapshot) Plan {
	c := &comparison{
		Snapshot: s, known: map[id.ID]vm.View{}, names: map[string]bool{}, volumes: map[id.ID]bool{},
		held: map[id.ID]Holding{}, lost: map[id.ID]bool{}, waits: map[id.ID]bool{}, claims: map[id.ID]int{},
	}
	c.MACs = maps.Clone(s.MACs)
	if c.MACs == nil {
		c.MACs = map[string]bool{}
	}
	c.Nodes, c.Jobs = slices.Clone(s.Nodes), slices.Clone(s.Jobs)
	for _, v := range s.VMs {
		c.known[v.Intent.ID] = v
		c.names[v.Intent.Name] = true
		for _, d := range v.Volumes {
			c.volumes[d.ID] = true
		}
	}
	slices.SortFunc(c.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	c.count()
	c.findMoved()
	for _, n := range c.Nodes {
		c.plan.Nodes = append(c.plan.Nodes, NodePlan{ID: n.ID, Name: n.Name, Release: n.Answered})
		if !n.Answered {
			c.waits[n.ID] = true
			continue
		}
		c.node(n)
	}
	slices.SortFunc(c.Jobs, func(a, b Job) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	for _, j := range c.Jobs {
		c.plan.Jobs = append(c.plan.Jobs, c.job(j))
	}
	c.plan.Jobs = slices.DeleteFunc(c.plan.Jobs, func(j JobPlan) bool { return j.Action == "" })
	c.plan.Images = slices.DeleteFunc(c.plan.Images, func(i image.Image) bool { return !c.used(i.ID) })
	c.plan.ID = c.id()
	return c.plan
}

// used tells whether an adopted VM stands on an image.
func (c *comparison) used(i id.ID) bool {
	is := func(of *id.ID) bool { return of != nil && *of == i }
	return slices.ContainsFunc(c.plan.VMs, func(v VMPlan) bool {
		return v.Adoption != nil && (is(v.Adoption.ImageID) || is(v.Adoption.SeedImageID) || is(v.Adoption.CDROMID) ||
			slices.ContainsFunc(v.Adoption.Volumes, func(d vm.Volume) bool { return is(d.ImageID) }))
	})
}

// count counts how many nodes have each VM.
func (c *comparison) count() {
	for _, n := range c.Nodes {
		for _, h := range n.Holdings {
			if n.Answered && h.holds() {
				c.claims[h.VM]++
			}
		}
	}
}

// twice is why nobody can tell whose a VM is that the database places nowhere.
const twice = "several nodes have it: find out which one runs it, and take it from the others"

// node compares one node with the database, both ways.
func (c *comparison) node(n Node) {
	holdings := map[id.ID]Holding{}
	slices.SortFunc(n.Holdings, func(a, b Holding) int { return strings.Compare(a.VM.String(), b.VM.String()) })
	for _, h := range n.Holdings {
		holdings[h.VM] = h
		c.holding(n, h)
	}
	for _, v := range c.VMs {
		if _, moved := c.moved[v.Intent.ID]; !moved && v.Intent.NodeID != nil && *v.Intent.NodeID == n.ID {
			c.missing(n, v, holdings)
		}
	}
}

// holding compares one VM that a node has told of.
func (c *comparison) holding(n Node, h Holding) {
	v, known := c.known[h.VM]
	elsewhere := known && v.Intent.NodeID != nil && *v.Intent.NodeID != n.ID
	switch {
	case (!known || elsewhere) && !h.holds():
	case !known:
		c.add(c.unknown(n, h))
	case elsewhere && c.moved[h.VM] != n.ID:
		c.add(c.elsewhere(n, h, v))
	case v.Intent.Lost == nil:
		c.held[h.VM] = h
		c.changed(n, h, v)
	}
}

func (c *comparison) add(p VMPlan) { c.plan.VMs = append(c.plan.VMs, p) }

func about(k Case, n Node, h Holding, name string) VMPlan {
	p := VMPlan{Case: k, VM: h.VM, Name: name, Node: n.ID, NodeName: n.Name, Since: h.RecordedAt, Fence: Fence{h.Epoch, h.OpSeq}}
	if h.Observed != nil {
		p.State = h.Observed.Phase
	}
	return p
}

func (c *comparison) elsewhere(n Node, h Holding, v vm.View) VMPlan {
	p := about(Elsewhere, n, h, v.Intent.Name)
	on := v.Intent.NodeID.String()
	if v.Node != nil {
		on = v.Node.Name
	}
	p.Action, p.Why = Leave, "a node is not believed about a VM of another one"
	p.Differences = []string{"the database has it on node " + on}
	return p
}

// changed compares a VM that both know. What the node has done since is adopted.
func (c *comparison) changed(n Node, h Holding, v vm.View) {
	if h.Erased && !h.alive() || !tells(h, v.Intent) {
		return // it is missing, or nothing is different
	}
	p := about(Changed, n, h, v.Intent.Name)
	p.Differences = differences(h, v.Intent)
	if v.Node != nil && v.Node.ID != n.ID {
		p.Differences = append(p.Differences, "was moved here from node "+v.Node.Name)
	}
	if why := c.unbelievable(h, v.Intent); why != "" {
		p.Action, p.Why = Leave, why
		c.add(p)
		return
	}
	a := c.adopt(h, v.Intent)
	a.Name = v.Intent.Name
	a.ImageID = v.Intent.ImageID
	c.disks(n, h, v, a)
	p.Differences = append(p.Differences, a.disks()...)
	p.Action, p.Adoption = Adopt, a
	c.add(p)
}

// unbelievable is why a node is not believed about a VM; empty when it is.
func (c *comparison) unbelievable(h Holding, in vm.Intent) string {
	switch {
	case !h.believable():
		return "its node tells numbers that cannot be true"
	case in.NodeID == nil && c.claims[h.VM] > 1:
		return twice
	default:
		return ""
	}
}

// tells whether a node tells more of a VM than the database knows.
func tells(h Holding, in vm.Intent) bool {
	if in.NodeID == nil {
		return h.holds()
	}
	return h.ahead(in)
}

// disks says how its disks differ.
func (a *Adoption) disks() (out []string) {
	for _, d := range a.Volumes {
		out = append(out, "has the disk "+d.ID.String()+" besides")
	}
	for _, d := range a.Resized {
		out = append(out, fmt.Sprintf("disk %d is larger", d.Slot))
	}
	for _, d := range a.Gone {
		out = append(out, fmt.Sprintf("disk %d is gone", d.Slot))
	}
	return out
}

// adopt takes what the node has over what the database says.
func (c *comparison) adopt(h Holding, in vm.Intent) *Adoption {
	a := &Adoption{
		CPUs: in.CPUs, MemoryBytes: in.MemoryBytes, Hardware: in.Hardware, PowerOn: h.PowerOn || h.alive(),
		Fence: Fence{max(h.Epoch, in.Epoch), max(h.OpSeq, in.OpSeq)}, Observed: h.Observed,
	}
	// launched since: as what it was launched counts
	if m := h.Machine; m != nil && h.Epoch > in.Epoch {
		a.CPUs, a.MemoryBytes, a.Hardware = m.CPUs, m.MemoryBytes, in.Hardware.With(m.Hardware)
	}
	return a
}

func differences(h Holding, in vm.Intent) (out []string) {
	say := func(differs bool, format string, args ...any) {
		if differs {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(in.NodeID == nil, "is on this node; the database has it on none")
	say(h.Epoch > in.Epoch, "owner epoch %d, in the database %d", h.Epoch, in.Epoch)
	say(h.OpSeq > in.OpSeq, "job number %d, in the database %d", h.OpSeq, in.OpSeq)
	say((h.PowerOn || h.alive()) != in.PowerOn, "is wanted %s, in the database %s", onOff(h.PowerOn || h.alive()), onOff(in.PowerOn))
	if m := h.Machine; m != nil && h.Epoch > in.Epoch {
		say(m.CPUs != in.CPUs, "has %d CPUs, in the database %d", m.CPUs, in.CPUs)
		say(m.MemoryBytes != in.MemoryBytes, "has %d bytes of memory, in the database %d", m.MemoryBytes, in.MemoryBytes)
		say(in.Hardware.With(m.Hardware) != in.Hardware, "has the hardware %v, in the database %v", m.Hardware, in.Hardware)
	}
	return out
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// missing finds a VM that its node should have and has nothing of.
func (c *comparison) missing(n Node, v vm.View, holdings map[id.ID]Holding) {
	h, known := holdings[v.Intent.ID]
	switch {
	case known && (!h.Erased || h.alive()):
		return
	case !known && (stillToBeMade(v) || onNode(n, v)):
		return // it never came there, or its record is lost and its disks are there
	case known && deletes(v, h):
		return
	}
	h.VM = v.Intent.ID
	p := about(Missing, n, h, v.Intent.Name)
	p.Action, p.Differences = Lose, []string{"its node has nothing of it"}
	if h.Erased {
		p.Differences = []string{"it was deleted since"}
	}
	c.lost[v.Intent.ID] = true
	c.add(p)
}

func onNode(n Node, v vm.View) bool {
	return slices.ContainsFunc(v.Volumes, func(d vm.Volume) bool {
		_, ok := n.Volumes[d.ID]
		return ok
	})
}

// stillToBeMade: its creation had not reached the node.
func stillToBeMade(v vm.View) bool {
	return v.Job != nil && (v.Job.Kind == vm.JobCreate || v.Job.Kind == vm.JobClone && v.Job.Target == v.Intent.ID)
}

// deletes: the job that had not ended is the one that deleted it.
func deletes(v vm.View, h Holding) bool {
	return v.Job != nil && v.Job.Kind == vm.JobDelete && h.Operation == v.Job.ID
}

// id names what a person decides on: not when things were seen, nor how VMs are
// just now, as long as the same is done about them.
func (c *comparison) id() string {
	h := sha256.New()
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(h, format+"\n", args...) }
	slices.SortFunc(c.plan.VMs, func(a, b VMPlan) int {
		return cmp.Or(strings.Compare(string(a.Case), string(b.Case)), strings.Compare(a.Name, b.Name), strings.Compare(a.VM.String(), b.VM.String()), strings.Compare(a.NodeName, b.NodeName))
	})
	for _, n := range c.plan.Nodes {
		say("node %s %t", n.ID, n.Release)
	}
	for _, v := range c.plan.VMs {
		say("vm %s %s %s %d %d", v.Case, v.VM, v.Node, v.Fence.Epoch, v.Fence.OpSeq)
		if a := v.Adoption; a != nil {
			say("as %s %v %d %d %t %d %d %d", a.Name, a.Hardware, a.CPUs, a.MemoryBytes, a.PowerOn, len(a.Volumes), len(a.Resized), len(a.Gone))
		}
	}
	for _, j := range c.plan.Jobs {
		say("job %s %s", j.ID, j.Action)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
