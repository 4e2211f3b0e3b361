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
	next := direct
	next.From.Name = "c"
	for _, c := range []struct {
		first migration.Way
		next  [][]migration.Way
		want  bool
	}{
		{cut, [][]migration.Way{{next, next}}, true},
		{cut, [][]migration.Way{{cut, direct}, {unknown, direct}, {next}}, true},
		{cut, [][]migration.Way{{next, cut}}, false},
		{cut, [][]migration.Way{{next, unknown}}, false},
		{cut, nil, false},
		{direct, [][]migration.Way{{next}}, false},
	} {
		p := migration.Plan{}.WithWays([]migration.Way{c.first}, c.next...)
		if got := strings.Contains(strings.Join(p.Notes, "; "), "node c suits, too"); got != c.want {
			t.Errorf("%+v: notes %q", c, p.Notes)
		}
	}
}
