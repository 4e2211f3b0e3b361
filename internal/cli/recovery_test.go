package cli

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

func someRecovery() api.Recovery {
	return api.Recovery{
		Held: true, Cause: "restored", Reason: "the database was put back", Plan: "3f0a",
		Nodes: []api.RecoveryNode{{ID: "n", Name: "n1", State: "compared"}, {ID: "m", Name: "n2", State: "away"}},
		VMs: []api.RecoveryVM{
			{Case: "changed", ID: "id-a", Name: "a", Node: "n1", Phase: "running", Differences: []string{"owner epoch 3, in the database 1"}, Action: "adopt"},
			{Case: "unknown", ID: "id-c", Name: "c", Node: "n1", Differences: []string{"the database does not have it"}, Action: "adopt", As: "c-0001"},
			{Case: "unknown", ID: "id-d1", Name: "d", Node: "n1", Action: "leave", Why: "its node's record does not say what it is made of"},
			{Case: "unknown", ID: "id-d2", Name: "d", Node: "n2", Action: "adopt"},
		},
		Jobs: []api.RecoveryJob{{ID: "j", Type: "vm.stop", Target: api.JobTarget{Name: "a"}, Action: "end", Why: "its node has carried it out"}},
		Left: []api.RecoveryLeft{{VM: "id-e", Name: "e", Node: "n1", By: "ann"}},
	}
}

// What differs is shown with what is done about it, and the command that does it.
func TestRecoveryShow(t *testing.T) {
	b := newBench(t)
	b.on("GET /recovery", 200, someRecovery())
	got := b.do(t, "recovery show", 0)
	for _, want := range []string{
		"the cluster is in recovery hold: the database was put back", "away", "owner epoch 3, in the database 1", "adopt as c-0001",
		"does not say what it is made of", "its node has carried it out", "ann", "novacron recovery confirm --plan 3f0a",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	b = newBench(t)
	b.on("GET /recovery", 200, api.Recovery{Nodes: []api.RecoveryNode{}, VMs: []api.RecoveryVM{}})
	if got := b.do(t, "recovery show", 0); !strings.Contains(got, "nothing") || strings.Contains(got, "confirm --plan") {
		t.Errorf("nothing is held: %s", got)
	}
}

// A plan is named, and so are VMs that are left: by a name that only one has.
func TestRecoveryConfirm(t *testing.T) {
	b := newBench(t)
	b.on("GET /recovery", 200, someRecovery())
	b.on("POST /recovery/confirm", 200, api.Recovery{Held: true, Nodes: []api.RecoveryNode{{Name: "n2", State: "away"}}})
	b.do(t, "recovery confirm", 2)
	if got := b.do(t, "recovery confirm --plan 3f0a --leave d", 3); !strings.Contains(got, "more than one") {
		t.Errorf("%s", got)
	}
	b.do(t, "recovery confirm --plan 3f0a --leave a", 3)
	if got := b.do(t, "recovery confirm --plan 3f0a --leave c --adopt id-d2", 0); !strings.Contains(got, "in recovery hold: n2") {
		t.Errorf("%s", got)
	}
	if asked := b.requests(); asked[len(asked)-1] != `POST /api/v1/recovery/confirm {"plan":"3f0a","adopt":["id-d2"],"leave":["id-c"]}` {
		t.Errorf("it asked for %s", asked[len(asked)-1])
	}
	b = newBench(t)
	b.on("POST /recovery/confirm", 412, api.Error{Code: "revision_mismatch", Detail: "what differs is not what was shown"})
	b.do(t, "recovery confirm --plan 3f0a", 4)
}
