package migration

import (
	"fmt"

	"github.com/novacron/novacron/internal/vocab/id"
)

// Queued is a migration that takes part of its nodes, or is to.
type Queued struct {
	ID             id.ID
	Source, Target Place
	// MostOut may leave its source at once, MostIn may come to its target.
	MostOut, MostIn int
	// Begun: has its turn come?
	Begun bool
	// Parked: it cannot begin whosever turn it is, and nobody waits for it.
	Parked bool
}

// Turn tells whether it is a migration's turn, or what it waits for. The queue is in the
// order of turns. One that has begun counts until it is not in the queue any more; of the
// others each begins that finds room on both of its nodes beside those before it, so that
// who waits for one node keeps nobody from another. One that is not in the queue may go on.
func Turn(queue []Queued, m id.ID) (bool, string) {
	out, in := map[id.ID]int{}, map[id.ID]int{}
	for _, q := range queue {
		if q.Begun {
			out[q.Source.Node]++
			in[q.Target.Node]++
		}
	}
	for _, q := range queue {
		if q.Begun || q.Parked && q.ID != m {
			continue
		}
		why := full(q, out[q.Source.Node], in[q.Target.Node])
		if q.ID == m {
			return why == "", why
		}
		if why == "" {
			out[q.Source.Node]++
			in[q.Target.Node]++
		}
	}
	return true, ""
}

func full(q Queued, out, in int) string {
	switch {
	case out >= q.MostOut:
		return fmt.Sprintf("waits for its turn: %d of %d migrations from node %s", out, q.MostOut, q.Source.Name)
	case in >= q.MostIn:
		return fmt.Sprintf("waits for its turn: %d of %d migrations to node %s", in, q.MostIn, q.Target.Name)
	}
	return ""
}
