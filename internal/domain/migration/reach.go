package migration

import (
	"fmt"
	"slices"
)

// Reach is how the nodes of a migration speak with each other.
type Reach string

// How nodes reach each other; empty when nobody has looked, or could.
const (
	Direct  Reach = "direct"
	Relayed Reach = "relayed" // by way of a server: slower
)

// Way is what was seen of one node's way to another. The first of a migration's is from its
// target.
type Way struct {
	From, To Place
	// Known: could it be looked at? Direct: does From reach To by itself, and if not, Why.
	Known, Direct bool
	Why           string
}

// WithWays is the plan with what was seen of the ways that the migration takes: what goes
// by one that is not there is relayed. Others are the ways that it would take to each of the
// nodes that come next in order: the first that needs no relay is named then.
func (p Plan) WithWays(ways []Way, others ...[]Way) Plan {
	p.Reach = reachOf(ways)
	for _, w := range ways {
		if w.Known && !w.Direct {
			p.Notes = append(p.Notes, fmt.Sprintf("node %s does not reach node %s (%s): what goes that way is relayed by a server, which is slower than what is predicted, and takes that server's network twice", w.From.Name, w.To.Name, w.Why))
		}
	}
	next := slices.IndexFunc(others, func(ways []Way) bool { return reachOf(ways) == Direct })
	if p.Reach == Relayed && next >= 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("node %s suits, too, and needs no relay: name it, to move there", others[next][0].From.Name))
	}
	return p
}

// reachOf is Relayed as soon as one way needs it, and Direct when all were seen.
func reachOf(ways []Way) Reach {
	relayed := func(w Way) bool { return w.Known && !w.Direct }
	unknown := func(w Way) bool { return !w.Known }
	switch {
	case slices.ContainsFunc(ways, relayed):
		return Relayed
	case slices.ContainsFunc(ways, unknown):
		return ""
	}
	return Direct
}
