package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// An alias stands wherever a name does, moves at once, and changes nothing for
// the VMs that are there.
func TestAliases(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("old")
	r.image("newer")
	set := func(image string) api.Image {
		t.Helper()
		i, status := call[api.Image](r, "PUT", "/api/v1/images/"+image+"/aliases/stable", nil)
		if status != http.StatusOK || i.Name != image || fmt.Sprint(i.Spec.Aliases) != "[stable]" {
			t.Fatalf("alias of %s: %d %+v", image, status, i)
		}
		return i
	}
	create := func(name string) {
		t.Helper()
		vm := newVM(name)
		vm.Image = "stable"
		if a, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", vm); status != http.StatusAccepted || a.Job.State != "succeeded" {
			t.Fatalf("create %s: %d %+v", name, status, a)
		}
	}
	set("old")
	create("a")
	before, _ := call[api.Image](r, "GET", "/api/v1/images/old", nil)
	moved := set("newer")
	create("b")
	if again := set("newer"); again.Revision != moved.Revision {
		t.Errorf("set to what it is: revision %d, then %d", moved.Revision, again.Revision)
	}
	if i, _ := call[api.Image](r, "GET", "/api/v1/images/old", nil); len(i.Spec.Aliases) != 0 || i.Revision <= before.Revision {
		t.Errorf("the image that had it: %+v", i)
	}
	for vm, image := range map[string]string{"a": "old", "b": "newer"} {
		if v, _ := call[api.VM](r, "GET", "/api/v1/vms/"+vm, nil); v.Spec.Image != image {
			t.Errorf("VM %s is of %s, want %s", vm, v.Spec.Image, image)
		}
	}
	for _, c := range []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"DELETE", "/api/v1/images/stable", nil, 409, "conflict"},
		{"DELETE", "/api/v1/images/newer", nil, 409, "in_use"},
		{"PUT", "/api/v1/images/old/aliases/newer", nil, 409, "already_exists"},
		{"DELETE", "/api/v1/images/old/aliases/stable", nil, 404, "not_found"},
		{"DELETE", "/api/v1/images/newer/aliases/newer", nil, 404, "not_found"},
		{"POST", "/api/v1/images", api.ImageCreate{Name: "stable", Type: "disk"}, 409, "already_exists"},
	} {
		e, status := call[api.Error](r, c.method, c.path, c.body)
		if status != c.status || e.Code != c.code {
			t.Errorf("%s %s: %d %+v", c.method, c.path, status, e)
		}
		if c.code == "in_use" && (fmt.Sprint(e.Blockers) != "[b]" || !strings.HasPrefix(e.Detail, "1 VM ")) {
			t.Errorf("in use by %v: %s", e.Blockers, e.Detail)
		}
	}
	if status, b := r.raw("DELETE", "/api/v1/images/stable/aliases/stable", nil); status != http.StatusNoContent {
		t.Errorf("remove: %d %s", status, b)
	}
	if status, _ := r.raw("GET", "/api/v1/images/stable", nil); status != http.StatusNotFound {
		t.Errorf("an alias that was removed: %d", status)
	}
	r.newImage("stable") // the name is free again
	if e, status := call[api.Error](r, "PUT", "/api/v1/images/stable/aliases/soon", nil); status != http.StatusConflict || e.Code != "invalid_state" {
		t.Errorf("an alias of what is not ready: %d %+v", status, e)
	}
}
