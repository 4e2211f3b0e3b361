package recovery

import (
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
)

// findMoved finds the VMs that were moved since, as their nodes tell together: the one on
// which the database has it says that it has nothing of it any more, and of all others
// one alone has it, and has seen no less. It takes both: one node alone is not believed
// about a VM of another.
func (c *comparison) findMoved() {
	c.moved = map[id.ID]id.ID{}
	if !c.Whole {
		return // the database is not behind: what a node has besides is its own doing
	}
	for _, n := range c.Nodes {
		for _, h := range n.Holdings {
			if v, known := c.known[h.VM]; known && n.Answered && c.movedTo(n, h, v) {
				c.moved[h.VM] = n.ID
			}
		}
	}
}

func (c *comparison) movedTo(n Node, h Holding, v vm.View) bool {
	in := v.Intent
	if in.NodeID == nil || *in.NodeID == n.ID || in.Lost != nil || !c.onlyOne(h, in) {
		return false
	}
	for _, s := range c.Nodes {
		if s.ID == *in.NodeID {
			return s.Answered && gaveAway(s, h, v)
		}
	}
	return false
}

// onlyOne tells whether this holding is the only one of its VM, can be true, and is of
// later than the database.
func (c *comparison) onlyOne(h Holding, in vm.Intent) bool {
	return c.claims[h.VM] == 1 && h.holds() && h.believable() && h.ahead(in)
}

// gaveAway tells whether a node has nothing of a VM any more, and saw it go: its fence is
// of the VM's removal there, and no later than what the other node has seen.
func gaveAway(s Node, there Holding, v vm.View) bool {
	for _, h := range s.Holdings {
		if h.VM == there.VM {
			return h.Erased && !h.alive() && h.ahead(v.Intent) && h.Epoch <= there.Epoch && h.OpSeq <= there.OpSeq && !onNode(s, v)
		}
	}
	return false
}
