package migration

import "fmt"

// Reach is how the nodes of a migration speak with each other.
type Reach string

// How nodes reach each other; empty when nobody has looked, or could.
const (
	Direct  Reach = "direct"
	Relayed Reach = "relayed" // by way of a server: slower
)

// Way is what was seen of one node's way to another.
type Way struct {
	From, To Place
	// Known: could it be looked at? Direct: does From reach To by itself, and if not, Why.
	Known, Direct bool
	Why           string
}

// WithWays is the plan with what was seen of the ways that the migration takes: what goes
// by one that is not there is relayed.
func (p Plan) WithWays(ways []Way) Plan {
	p.Reach = Direct
	for _, w := range ways {
		switch {
		case !w.Known && p.Reach == Direct:
			p.Reach = ""
		case w.Known && !w.Direct:
			p.Reach = Relayed
			p.Notes = append(p.Notes, fmt.Sprintf("node %s does not reach node %s (%s): what goes that way is relayed by a server, which is slower than what is predicted, and takes that server's network twice", w.From.Name, w.To.Name, w.Why))
		}
	}
	return p
}
