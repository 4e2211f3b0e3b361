package arch

import (
	"go/ast"
	"slices"
	"strconv"
	"testing"
)

// clockFiles may ask the machine for the time: the clock itself, and the one
// file of the public SDK that cannot import it.
var clockFiles = []string{"internal/vocab/clock", "client/clock.go"}

// wallClock is what product code gets from the clock that is passed in.
var wallClock = []string{"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Since", "Until", "Tick"}

// timeName is the name under which a file knows package time.
func timeName(f *file) string {
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != "time" {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return "time"
	}
	return ""
}

// clockUses lists the forbidden uses of package time. A test may look at the
// time but not sleep, unless it runs in synctest, where sleeping is instant.
func clockUses(f *file) []string {
	name, forbidden := timeName(f), wallClock
	switch {
	case name == "" || f.generated || ownsClock(f):
		return nil
	case f.isTest() && slices.Contains(f.imports(), "testing/synctest"):
		return nil
	case f.isTest():
		forbidden = []string{"Sleep", "Tick"}
	}
	var uses []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok && x.Name == name && slices.Contains(forbidden, selector.Sel.Name) {
			uses = append(uses, f.at(n)+": time."+selector.Sel.Name)
		}
		return true
	})
	return uses
}

func ownsClock(f *file) bool {
	return slices.ContainsFunc(clockFiles, func(owner string) bool { return f.path == owner || f.under(owner) })
}

func TestTimeComesFromTheClock(t *testing.T) {
	for _, f := range repository(t) {
		for _, use := range clockUses(f) {
			t.Errorf("%s: take the time from the clock.Clock that is passed in; in tests wait for a state, not for time", use)
		}
	}
}

func TestClockRule(t *testing.T) {
	const body = "package x\nimport \"time\"\nvar a = time.Now()\nfunc f() { time.Sleep(1) }\n"
	cases := []struct {
		path, src string
		want      int
	}{
		{"internal/control/vm.go", body, 2},
		{"internal/control/vm_test.go", body, 1},
		{"internal/vocab/clock/clock.go", body, 0},
		{"client/clock.go", body, 0},
		{"client/client.go", body, 2},
		{"a.go", "package x\nimport t \"time\"\nvar a = t.Now\n", 1},
		{"a.go", "package x\nimport \"time\"\nvar a time.Time\n", 0},
		{"a_test.go", "package x\nimport (\n\"time\"\n\"testing/synctest\"\n)\nvar _ = synctest.Test\nfunc f() { time.Sleep(1) }\n", 0},
	}
	for _, c := range cases {
		if got := clockUses(snippet(t, c.path, c.src)); len(got) != c.want {
			t.Errorf("%s: found %v, want %d uses", c.path, got, c.want)
		}
	}
}
