package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

// What goes with a node is said before it is asked for; a script has to say yes.
func TestNodeRemoveByForce(t *testing.T) {
	b := newBench(t)
	b.on("GET /nodes/n1", 200, api.Node{Meta: api.Meta{ID: "id-n1", Name: "n1", Revision: 7}, Status: api.NodeStatus{VMs: 12}})
	var vms api.List[api.VM]
	for i := range mostNamed {
		vms.Items = append(vms.Items, someVM(fmt.Sprint("vm-", i), "unknown"))
	}
	vms.Next = "more"
	b.on("GET /vms", 200, vms)
	b.on("DELETE /nodes/id-n1", 204, nil)
	b.on("DELETE /nodes/n1", 409, api.Error{Code: "in_use", Detail: "node \"n1\" still has 12 VMs", Blockers: []string{"a"}})

	got := b.do(t, "node remove n1 --force", 2)
	for _, want := range []string{"states that its host is off and stays off", "12 virtual machines are lost with their disks: vm-0, ", "vm-9 and 2 more", "say --yes"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
	for _, asked := range b.asked {
		if strings.HasPrefix(asked, "DELETE") {
			t.Errorf("without a yes: %s", asked)
		}
	}
	got = b.do(t, "node remove n1 --force --yes", 0)
	if !strings.Contains(got, "node n1: removed; 12 virtual machines are lost") {
		t.Error(got)
	}
	if !slices.Contains(b.asked, "DELETE /api/v1/nodes/id-n1?force=true") || !slices.Contains(b.asked, "GET /api/v1/vms?limit=10&node=n1") {
		t.Errorf("%q", b.asked)
	}
	if got := b.do(t, "node remove n1", 4); !strings.Contains(got, "in the way: a") {
		t.Error(got)
	}
}

func TestLostLine(t *testing.T) {
	one := []api.VM{someVM("web", "unknown")}
	for want, got := range map[string]string{
		"no virtual machine is lost with it":                           lostLine(0, nil),
		"1 virtual machine is lost with its disks: web":                lostLine(1, one),
		"3 virtual machines are lost with their disks: web and 2 more": lostLine(3, one),
		"2 virtual machines are lost with their disks: web, web":       lostLine(2, append(one, one...)),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNodeSet(t *testing.T) {
	b := newBench(t)
	n := api.Node{Meta: api.Meta{Kind: "node", Name: "n1"}, Spec: api.NodeSpec{ShutdownPolicy: "leave", MigrationsOut: 3, MigrationsIn: 2}}
	b.on("PATCH /nodes/n1", 200, n)
	expect(t, b.do(t, "node set n1 --shutdown-policy leave", 0), "n1: at its host's shutdown: leave; at once 3 machines move away and 2 here\n")
	expect(t, b.requests()[0], `PATCH /api/v1/nodes/n1 {"shutdown_policy":"leave"}`)
	b.do(t, "node set n1 --migrations-out 3", 0)
	expect(t, b.requests()[1], `PATCH /api/v1/nodes/n1 {"migrations_out":3}`)
	n.Spec.MigrationBytesPerSecond = 400 << 20
	b.on("PATCH /nodes/n2", 200, n)
	if got := b.do(t, "node set n2 --migration-bandwidth 400MiB", 0); !strings.Contains(got, "3 machines move away and 2 here, with 400 MiB/s for all of them") {
		t.Error(got)
	}
	expect(t, b.requests()[2], `PATCH /api/v1/nodes/n2 {"migration_bytes_per_second":419430400}`)
	b.do(t, "node set n1", 2)
	if len(b.requests()) != 3 {
		t.Errorf("%v", b.requests())
	}
}
