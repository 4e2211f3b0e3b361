package recovery

import (
	"fmt"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Evidence tells what shows that the database knows less than a node, or that the
// node lies; empty when nothing does. Which of the two it is, nobody can tell from
// one node: it is held, with the VMs on it, and an operator decides.
//
// vms are those of the node's holdings that the database has, read after the node
// has told: what the database knows only grows, and grows first.
func Evidence(n Node, vms map[id.ID]vm.Intent, left map[Left]bool) string {
	for _, h := range n.Holdings {
		in, known := vms[h.VM]
		switch {
		case left[Left{h.VM, n.ID}]:
		case !known && h.holds():
			return fmt.Sprintf("it has VM %s, which the database does not have", named(h))
		case !known:
		case in.NodeID != nil && *in.NodeID != n.ID:
			if h.holds() {
				return fmt.Sprintf("it has VM %s, which the database places on another node", in.Name)
			}
		case h.ahead(in):
			return fmt.Sprintf("of VM %s it has seen owner epoch %d and job number %d, the database %d and %d", in.Name, h.Epoch, h.OpSeq, in.Epoch, in.OpSeq)
		}
	}
	return ""
}

func named(h Holding) string {
	if h.Machine != nil {
		return h.Machine.Name
	}
	return h.VM.String()
}

// Behind tells whether it must be the database that is behind: no one node can
// make it so, and neither can a few of many.
func Behind(ahead, nodes int64) bool { return ahead > max(1, nodes*3/10) }
