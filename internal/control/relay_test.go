package control_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/migration"
)

// A plan looks at the ways that a migration takes: a target reads what rests, and a source sends
// what executes besides, live or warm. Where the best node needs a relay it names the next that
// does not.
func TestPlanSeesTheWays(t *testing.T) {
	for name, c := range map[string]struct {
		runs, back bool // back: the way from the source to its target is the one that is not there
		kind       migration.Kind
		want       migration.Reach
	}{
		"Cold":            {want: migration.Relayed},
		"ColdNeedsOneWay": {back: true, want: migration.Direct},
		"Live":            {runs: true, back: true, want: migration.Relayed},
		"Warm":            {runs: true, back: true, kind: migration.Warm, want: migration.Relayed},
		"WarmToItsSource": {runs: true, kind: migration.Warm, want: migration.Relayed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := controltest.New(t, 3)
			n := w.NewVM("a", c.runs)
			n.Node = "n1"
			make1(t, w, n)
			asked := migration.Request{Kind: c.kind}
			first, err := w.Service.PlanMigration(t.Context(), controltest.Admin(), "a", asked)
			if err != nil || first.Reach != migration.Direct {
				t.Fatalf("%q: %v", first.Reach, err)
			}
			for _, node := range w.Nodes {
				if node.ID != first.Target().Node {
					continue
				}
				if c.back {
					w.Part(w.Nodes[0], node)
				} else {
					w.Part(node, w.Nodes[0])
				}
			}
			p, err := w.Service.PlanMigration(t.Context(), controltest.Admin(), "a", asked)
			if err != nil || p.Reach != c.want || p.Target() != first.Target() {
				t.Errorf("%q to %s: %v, want %q to %s", p.Reach, p.Target().Name, err, c.want, first.Target().Name)
			}
			other := "node " + p.Ranked[1].Name + " suits, too"
			if got := strings.Contains(strings.Join(p.Notes, "; "), other); got != (c.want == migration.Relayed) {
				t.Errorf("notes %q", p.Notes)
			}
		})
	}
}
