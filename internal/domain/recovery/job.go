package recovery

import (
	"github.com/novacron/novacron/internal/domain/vm"
)

// job decides what becomes of a job that had not ended in the older database. One
// whose VM's node has seen it, or a later one, was carried out: to repeat it would
// do a second time what was done. One that its node never heard of goes on. A
// deletion that was carried out goes on, too: there is nothing left to harm.
func (c *comparison) job(j Job) JobPlan {
	p := JobPlan{Job: j, Action: GoOn}
	if j.TargetKind != "vm" {
		return JobPlan{} // it goes on when the hold ends
	}
	v, ok := c.known[j.Target]
	if !ok {
		return JobPlan{} // no such VM: nothing that a plan could say
	}
	if v.Intent.NodeID == nil {
		return c.unplacedJob(p, v)
	}
	if c.waits[*v.Intent.NodeID] {
		return JobPlan{} // it waits with its node
	}
	return c.placedJob(p, v)
}

// unplacedJob is one on a VM that the database has on no node. A node that has not
// answered may have it.
func (c *comparison) unplacedJob(p JobPlan, v vm.View) JobPlan {
	h, found := c.held[p.Target]
	switch {
	case v.Intent.Lost != nil:
	case found:
		p.Attempt = h.Attempt
		p.Action, p.Why = End, "its VM was made since, on a node"
	case !c.Whole:
		return JobPlan{} // made since
	case len(c.waits) > 0:
		p.Action, p.Why = End, "a node that has not told what it holds may have its VM"
	}
	return p
}

func (c *comparison) placedJob(p JobPlan, v vm.View) JobPlan {
	if !c.compared(v) {
		return JobPlan{} // its node is not held
	}
	h, found := c.held[p.Target]
	switch {
	case c.lost[p.Target]:
		p.Action, p.Why = End, "its VM is not there any more"
	case found && h.OpSeq >= p.OpSeq && p.Kind == vm.JobDelete && h.Erased && h.Operation == p.ID:
		p.Attempt = h.Attempt
	case found && h.OpSeq >= p.OpSeq:
		p.Attempt = h.Attempt
		p.Action, p.Why = End, "its node has carried it out, or a later one"
	}
	return p
}

// compared tells whether the VM's node has told what it holds.
func (c *comparison) compared(v vm.View) bool {
	for _, n := range c.Nodes {
		if n.ID == *v.Intent.NodeID {
			return n.Answered
		}
	}
	return false
}
