package near

import (
	"slices"
	"testing"
)

func TestWord(t *testing.T) {
	words := []string{"running", "stopped", "stopping", "node", "label"}
	for wrote, want := range map[string]string{
		"runnng": "running", "RUNNING": "running", "stoped": "stopped", "lable": "label", "nod": "node",
		"": "", "x": "", "migration": "", "name": "node",
	} {
		if got := Word(wrote, slices.Values(words)); got != want {
			t.Errorf("%q: %q, want %q", wrote, got, want)
		}
	}
	if got := Hint("nodes", slices.Values(words)); got != `; did you mean "node"?` {
		t.Error(got)
	}
}
