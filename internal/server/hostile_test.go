package server

import (
	"net/http"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// Text that the database cannot hold is refused like any other name that names
// nothing: it is no failure of the server.
func TestTextThatNoDatabaseTakes(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	for _, bad := range []string{"%00", "a%00b", "%ff", "%ed%a0%80", "%c0%80"} {
		for _, at := range []struct{ method, path string }{
			{"GET", "/api/v1/vms/" + bad},
			{"DELETE", "/api/v1/vms/" + bad},
			{"POST", "/api/v1/vms/" + bad + "/stop"},
			{"PATCH", "/api/v1/vms/" + bad},
			{"GET", "/api/v1/vms/" + bad + "/log"},
			{"GET", "/api/v1/nodes/" + bad},
			{"DELETE", "/api/v1/nodes/" + bad},
			{"POST", "/api/v1/nodes/" + bad + "/cordon"},
			{"GET", "/api/v1/images/" + bad},
			{"DELETE", "/api/v1/images/" + bad},
			{"PUT", "/api/v1/images/" + bad + "/files/kernel"},
			{"GET", "/api/v1/jobs/" + bad},
			{"DELETE", "/api/v1/tokens/" + bad},
			{"GET", "/api/v1/vms?name=" + bad},
			{"GET", "/api/v1/vms?label=" + bad},
			{"GET", "/api/v1/vms?node=" + bad},
			{"GET", "/api/v1/vms?sort=" + bad},
			{"GET", "/api/v1/nodes?name=" + bad},
			{"GET", "/api/v1/nodes?state=" + bad},
			{"GET", "/api/v1/images?name=" + bad},
			{"GET", "/api/v1/jobs?target=" + bad},
			{"GET", "/api/v1/jobs?kind=" + bad},
			{"GET", "/api/v1/audit?object=" + bad},
			{"GET", "/api/v1/vms?cursor=" + bad},
		} {
			var body any
			if at.method == "PATCH" {
				body = `{"labels":{"a":"b"}}`
			}
			if status, answer := r.raw(at.method, at.path, body); status >= 500 {
				t.Errorf("%s %s: %d %s", at.method, at.path, status, answer)
			}
		}
	}
	for name, body := range map[string]string{
		"label":   `{"name":"a","cpus":1,"memory_bytes":134217728,"image":"tiny","labels":{"k":"\u0000"}}`,
		"key":     `{"name":"a","cpus":1,"memory_bytes":134217728,"image":"tiny","labels":{"\u0000":"v"}}`,
		"image":   `{"name":"a","cpus":1,"memory_bytes":134217728,"image":"\u0000"}`,
		"node":    `{"name":"a","cpus":1,"memory_bytes":134217728,"image":"tiny","node":"\u0000"}`,
		"host ip": `{"name":"a","cpus":1,"memory_bytes":134217728,"image":"tiny","nics":[{"forwards":[{"protocol":"tcp","host_ip":"\u0000","host_port":1,"guest_port":1}]}]}`,
	} {
		if status, answer := r.raw("POST", "/api/v1/vms", body); status >= 500 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if status, answer := r.raw("POST", "/api/v1/images", `{"name":"a","type":"kernel","cmdline":"a\u0000b"}`); status >= 500 || status == http.StatusCreated {
		t.Errorf("cmdline: %d %s", status, answer)
	}
	for _, key := range []string{"\xff", "a\xffb", "\xc0\x80"} {
		if e, status := call[api.Error](r, "POST", "/api/v1/images", api.ImageCreate{Name: "b", Type: "kernel"}, "Idempotency-Key", key); status >= 500 {
			t.Errorf("key %q: %d %+v", key, status, e)
		}
	}
}
