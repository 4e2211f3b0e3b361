package cli

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

func TestNodeDrain(t *testing.T) {
	b := newBench(t)
	vms := []api.DrainVM{
		{Name: "web", Action: "live", Target: "n2", State: "running", Stage: "move"},
		{Name: "db", Action: "block", State: "left", Reason: "its drain policy is refuse"},
	}
	job := api.Job{Kind: "job", ID: "j-1", Type: "node.drain", State: "queued"}
	b.on("POST /nodes/n1/drain", 202, api.NodeDrainResult{Job: &job})
	b.on("POST /nodes/n1/return", 200, api.NodeDrainResult{})
	b.on("GET /nodes/n1/drain", 200, api.Drain{Kind: "drain", Type: "drain", Node: "n1", State: "running", CreatedBy: "root", VMs: vms})
	got := b.do(t, "node drain n1 --policy cold --parallel 4 --partial --grace 5 --reason fan", 0)
	if !strings.Contains(got, "drain n1: accepted as job j-1") {
		t.Error(got)
	}
	expect(t, b.requests()[0], `POST /api/v1/nodes/n1/drain {"policy":"cold","parallel":4,"grace_seconds":5,"partial":true,"reason":"fan"}`)
	if got := b.do(t, "node drain n1 --status", 0); !strings.Contains(got, "running move") || !strings.Contains(got, "its drain policy is refuse") {
		t.Error(got)
	}
	if got := b.do(t, "node return n1 --vms", 0); !strings.Contains(got, "nothing is brought back") {
		t.Error(got)
	}
	expect(t, b.requests()[2], `POST /api/v1/nodes/n1/return {"vms":true}`)
	b.do(t, "node drain", 2)
}
