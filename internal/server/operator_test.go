package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// What an operator should not have asked for is refused with the list of what blocks,
// and changes nothing; where it can be forced, that is on record.
func TestOperatorErrors(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.nodes(2)
	r.image("tiny")
	r.newImage("cd")
	for _, name := range []string{"web", "db"} {
		r.does("POST", "/api/v1/vms", newVM(name))
	}
	where := map[string]string{}
	for _, name := range []string{"web", "db"} {
		v, _ := call[api.VM](r, "GET", "/api/v1/vms/"+name, nil)
		where[name] = v.Status.Node
	}
	admin, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "ops", Role: "administrator"})
	reader, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "eyes", Role: "reader"})
	_, _ = call[api.VM](r, "PATCH", "/api/v1/vms/web", map[string]any{"labels": map[string]string{"tier": "web"}})

	both := []string{"web", "db"}
	on := func(node string) (out []string) {
		for _, v := range both {
			if where[v] == node {
				out = append(out, v)
			}
		}
		return out
	}
	before := written(t, db)
	for _, c := range []struct {
		what, method, path string
		code, says         string
		blockers           []string
	}{
		{"remove a node with VMs", "DELETE", "/api/v1/nodes/" + where["web"], "in_use", "", on(where["web"])},
		{"remove the other node with VMs", "DELETE", "/api/v1/nodes/" + where["db"], "in_use", "", on(where["db"])},
		{"remove a node by force that reports", "DELETE", "/api/v1/nodes/" + where["web"] + "?force=true", "invalid_state", "reports", nil},
		{"delete an image in use", "DELETE", "/api/v1/images/tiny", "in_use", "", both},
		{"revoke the last administrator's token", "DELETE", "/api/v1/tokens/" + admin.ID, "in_use", "last administrator", []string{admin.ID}},
	} {
		e, status := call[api.Error](r, c.method, c.path, nil)
		slices.Sort(e.Blockers)
		slices.Sort(c.blockers)
		if status != http.StatusConflict || e.Code != c.code || !strings.Contains(e.Detail, c.says) || !slices.Equal(e.Blockers, c.blockers) {
			t.Errorf("%s: %d %+v, want 409 %s that says %q and names %v", c.what, status, e, c.code, c.says, c.blockers)
		}
	}
	if after := written(t, db); after != before {
		t.Errorf("what was refused changed rows: %s, before %s", after, before)
	}

	// no node takes VMs: allowed, nothing that runs is touched, and what waits says why
	for n := range 2 {
		if status, body := r.raw("POST", fmt.Sprintf("/api/v1/nodes/sim-000%d/cordon", n+1), nil); status != http.StatusOK {
			t.Fatalf("cordon: %d %s", status, body)
		}
	}
	if status, body := r.raw("POST", "/api/v1/vms", newVM("late")); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	r.until("the VM says why it waits", 20*time.Second, func() bool {
		_, body := r.raw("GET", "/api/v1/vms/late", nil)
		return strings.Contains(string(body), `"pending"`) && strings.Count(string(body), "cordoned") >= 2
	})
	if v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil); v.Status.State != "running" {
		t.Errorf("a VM of a cordoned node is %s", v.Status.State)
	}

	// a reader's token is no administrator's; another administrator's makes room
	for _, c := range []struct {
		path string
		want int
	}{
		{"/api/v1/tokens/" + reader.ID, http.StatusNoContent},
		{"/api/v1/tokens/" + admin.ID + "?force=perhaps", http.StatusUnprocessableEntity},
		{"/api/v1/tokens/" + admin.ID + "?force=true", http.StatusNoContent},
	} {
		if status, body := r.raw("DELETE", c.path, nil); status != c.want {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
	}
	r.until("the forced revocation is on record", 20*time.Second, func() bool {
		a, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit?limit=100", nil)
		return slices.ContainsFunc(a.Items, func(k api.AuditRecord) bool {
			return k.Action == "token.revoke" && k.Object.ID == admin.ID && k.Detail["forced"] == true
		})
	})
}
