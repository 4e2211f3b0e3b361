package server

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// A node is drained over the API and gets back what it had. Simulated nodes of one process
// give one another nothing: what moves is tested where they do.
func TestDrainOverAPI(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(2)
	r.image("tiny")
	var onA []string
	for _, name := range []string{"a", "b", "c", "d"} {
		r.does("POST", "/api/v1/vms", newVM(name))
		if v, _ := call[api.VM](r, "GET", "/api/v1/vms/"+name, nil); v.Status.Node == "sim-0001" {
			onA = append(onA, name)
		}
	}
	const node = "/api/v1/nodes/sim-0001"
	if e, status := call[api.Error](r, "GET", node+"/drain", nil); status != http.StatusNotFound {
		t.Errorf("before the first drain: %d %+v", status, e)
	}
	plan, status := call[api.NodeDrainResult](r, "POST", node+"/drain?dry_run=true", api.NodeDrain{})
	if status != http.StatusOK || plan.Plan == nil || len(plan.Plan.VMs) != len(onA) || len(plan.Plan.Blocked) != 0 || plan.Plan.VMs[0].Target != "sim-0002" {
		t.Fatalf("%d %+v", status, plan.Plan)
	}
	_, _ = call[api.VM](r, "PATCH", "/api/v1/vms/"+onA[0], map[string]any{"drain_policy": "refuse"})
	e, status := call[api.Error](r, "POST", node+"/drain", api.NodeDrain{})
	if status != http.StatusConflict || e.Code != "in_use" || !slices.Equal(e.Blockers, []string{onA[0] + ": its drain policy is refuse"}) {
		t.Errorf("%d %+v", status, e)
	}
	r.does("POST", node+"/drain", api.NodeDrain{Policy: "stop", GraceSeconds: new(int64(0)), Reason: "a test"})
	d, _ := call[api.Drain](r, "GET", node+"/drain", nil)
	if d.Type != "drain" || d.Reason != "a test" || len(d.VMs) != len(onA) {
		t.Errorf("%+v", d)
	}
	for _, v := range d.VMs {
		if v.State != "done" || v.Action != "stop" || v.Job == "" {
			t.Errorf("%+v", v)
		}
	}
	r.does("POST", node+"/return", api.NodeReturn{VMs: true})
	r.until("they run there again", 20*time.Second, func() bool {
		for _, name := range onA {
			v, _ := call[api.VM](r, "GET", "/api/v1/vms/"+name, nil)
			if v.Status.Node != "sim-0001" || v.Status.State != "running" {
				return false
			}
		}
		return true
	})
	if again, status := call[api.NodeDrainResult](r, "POST", node+"/return", api.NodeReturn{}); status != http.StatusOK || again.Job != nil {
		t.Errorf("%d %+v", status, again)
	}
	for body, field := range map[*api.NodeDrain]string{{Policy: "warm"}: "/policy", {Parallel: 33}: "/parallel", {GraceSeconds: new(int64(-1))}: "/grace_seconds"} {
		if e, status := call[api.Error](r, "POST", node+"/drain", *body); status != http.StatusUnprocessableEntity || len(e.Errors) != 1 || e.Errors[0].Field != field {
			t.Errorf("%+v: %d %+v", *body, status, e)
		}
	}
}
