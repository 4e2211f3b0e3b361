package migration_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/migration"
)

// A plan says that a relay is taken as soon as one way is seen to need it, and nothing of a
// way that nobody could look at.
func TestPlanSaysHowNodesReachEachOther(t *testing.T) {
	direct, unknown := migration.Way{Known: true, Direct: true}, migration.Way{}
	cut := migration.Way{From: migration.Place{Name: "a"}, To: migration.Place{Name: "b"}, Known: true, Why: "no answer"}
	for _, c := range []struct {
		ways []migration.Way
		want migration.Reach
	}{
		{[]migration.Way{direct, direct}, migration.Direct},
		{[]migration.Way{direct, cut}, migration.Relayed},
		{[]migration.Way{cut, unknown}, migration.Relayed},
		{[]migration.Way{unknown, cut}, migration.Relayed},
		{[]migration.Way{direct, unknown}, ""},
		{[]migration.Way{unknown, direct}, ""},
	} {
		p := migration.Plan{}.WithWays(c.ways)
		if p.Reach != c.want {
			t.Errorf("%+v: %q, want %q", c.ways, p.Reach, c.want)
		}
		if said := strings.Contains(strings.Join(p.Notes, " "), "node a does not reach node b (no answer)"); said != (c.want == migration.Relayed) {
			t.Errorf("%+v: notes %q", c.ways, p.Notes)
		}
	}
}
