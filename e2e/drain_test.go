package e2e

import (
	"strings"
	"testing"
)

// A node with a real guest is emptied: the guest goes on on the other node, with its memory;
// and comes back when the node returns, shut down this time, with its disk.
func TestNodeIsDrained(t *testing.T) {
	i := up(t, "--accel", "tcg", "--nodes", "2")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "WROTE-42", "echo nova-data-7 > /dev/vda; sync; echo kept-in-memory > /remember; echo WROTE-$((6*7))")
	first := i.nodeOf("web")
	i.must("vm", "set", "web", "--drain", "refuse")
	i.fails(4, "its drain policy is refuse", "node", "drain", first)
	i.must("vm", "set", "web", "--drain", "live")
	if plan := i.must("node", "drain", first, "--plan"); !strings.Contains(plan, "live") || i.nodeOf("web") != first {
		t.Errorf("the plan: %s", plan)
	}
	i.must("node", "drain", first, "--grace", "2", "--reason", "a new fan", "--wait")
	if i.nodeOf("web") == first {
		t.Fatalf("it is on %s still", first)
	}
	i.console("web", "THERE-kept-in-memory-nova-data-7", "echo THERE-$(cat /remember)-$(head -c 11 /dev/vda)")
	if out := i.must("node", "drain", first, "--status"); !strings.Contains(out, "done") {
		t.Errorf("the record: %s", out)
	}
	i.must("node", "return", first, "--vms", "--policy", "cold", "--grace", "2", "--wait")
	if i.nodeOf("web") != first {
		t.Errorf("it is on %s", i.nodeOf("web"))
	}
	i.logged("web", ready)
	i.console("web", "BACK-nova-data-7", "echo BACK-$(head -c 11 /dev/vda)")
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}
