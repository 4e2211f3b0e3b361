package auth

import "testing"

// To run programs in guests is an action of its own: who may only look may not, and
// nor may a node.
func TestRunIsItsOwnAction(t *testing.T) {
	run := Need{Resource: VM, Action: Run}
	for role, want := range map[Role]bool{Administrator: true, Reader: false, Node: false, Anonymous: false} {
		if May(role, run) != want {
			t.Errorf("%s: %v", role, !want)
		}
	}
	if Run == Execute || Run == Admin {
		t.Error("it is another's name")
	}
}
