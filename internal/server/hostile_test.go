package server

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// A request that is refused has changed nothing, wherever in it the mistake was.
func TestRefusedRequestsChangeNothing(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.image("tiny")
	for _, wait := range []string{"bogus", "-1s", "6m", "5", "9999999h"} {
		if e, status := call[api.Error](r, "POST", "/api/v1/vms?wait="+wait, newVM("a")); status != http.StatusUnprocessableEntity {
			t.Errorf("wait=%s: %d %+v", wait, status, e)
		}
		if _, status := call[api.Error](r, "GET", "/api/v1/vms/a", nil); status != http.StatusNotFound {
			t.Errorf("wait=%s: the VM is made: %d", wait, status)
		}
	}
	if _, status := call[api.Accepted](r, "POST", "/api/v1/vms", newVM("a")); status != http.StatusAccepted {
		t.Fatalf("create: %d", status)
	}
	for at, want := range map[string]int{
		"DELETE /api/v1/vms/a?wait=bogus":         http.StatusUnprocessableEntity,
		"DELETE /api/v1/images/tiny?wait=-1s":     http.StatusUnprocessableEntity,
		"DELETE /api/v1/vms/a?wait=1s&wait=2s":    http.StatusBadRequest,
		"GET /api/v1/vms?name=a&name=b":           http.StatusBadRequest,
		"GET /api/v1/vms?limit=-1":                http.StatusBadRequest,
		"GET /api/v1/events?after=-1":             http.StatusBadRequest,
		"GET /api/v1/events?after=99999999999":    http.StatusBadRequest,
		"GET /api/v1/jobs/x?wait=1s":              http.StatusUnprocessableEntity,
		"POST /api/v1/vms/a/stop?grace_seconds=1": http.StatusBadRequest,
	} {
		method, path, _ := strings.Cut(at, " ")
		if e, status := call[api.Error](r, method, path, nil); status != want {
			t.Errorf("%s: %d %+v", at, status, e)
		}
	}
	// a change of nothing believes something, too
	if e, status := call[api.Error](r, "PATCH", "/api/v1/vms/a", "{}", "If-Match", `"999"`); status != http.StatusPreconditionFailed || e.Code != "revision_mismatch" {
		t.Errorf("an empty change under a stale revision: %d %+v", status, e)
	}
	if v, status := call[api.VM](r, "PATCH", "/api/v1/vms/a", "{}", "If-Match", "*"); status != http.StatusOK || v.Name != "a" {
		t.Errorf("an empty change: %d %+v", status, v)
	}
	if e, status := call[api.Error](r, "DELETE", "/api/v1/vms/a", nil, "If-Match", `"999"`); status != http.StatusPreconditionFailed {
		t.Errorf("delete of another revision: %d %+v", status, e)
	}
	for _, body := range []string{`{"grace_seconds":18446744074}`, `{"grace_seconds":-1}`, `{"grace_seconds":3601}`} {
		if e, status := call[api.Error](r, "POST", "/api/v1/vms/a/stop", body); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %+v", body, status, e)
		}
	}
	if e, status := call[api.Error](r, "POST", "/api/v1/tokens", `{"name":"t","role":"reader","expires_in_seconds":-18446744073}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a token that expired long ago: %d %+v", status, e)
	}
	if v, status := call[api.VM](r, "GET", "/api/v1/vms/a", nil); status != http.StatusOK || v.Status.State != "pending" {
		t.Errorf("after all that: %d %+v", status, v.Status)
	}
}

// Uploads that break off, lie or come twice leave nothing behind.
func TestHostileUploads(t *testing.T) {
	dir := t.TempDir()
	r := start(t, storetest.New(t), dir)
	if _, status := call[api.Image](r, "POST", "/api/v1/images", api.ImageCreate{Name: "os", Type: "disk"}); status != http.StatusCreated {
		t.Fatalf("create image: %d", status)
	}
	put := "PUT /api/v1/images/os/files/disk HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n"
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, put+"half"); err != nil {
		t.Fatal(err)
	}
	_ = c.Close() // breaks off
	disk := make([]byte, 4096)
	for digest, want := range map[string]int{
		"sha-256=" + strings.Repeat("0", 64): http.StatusUnprocessableEntity,
		"sha-256=00":                         http.StatusUnprocessableEntity,
		"md5=0":                              http.StatusUnprocessableEntity,
	} {
		if status, body := r.raw("PUT", "/api/v1/images/os/files/disk", disk, "Digest", digest); status != want {
			t.Errorf("%s: %d %s", digest, status, body)
		}
	}
	for path, want := range map[string]int{
		"/api/v1/images/os/files/kernel": http.StatusUnprocessableEntity, "/api/v1/images/os/files/..%2f..%2fkek": http.StatusUnprocessableEntity,
		"/api/v1/images/none/files/disk": http.StatusNotFound,
	} {
		if status, body := r.raw("PUT", path, disk); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := r.raw("PUT", "/api/v1/images/os/files/disk", []byte{}); status != http.StatusUnprocessableEntity {
		t.Errorf("empty: %d %s", status, body)
	}
	sum := fmt.Sprintf("sha-256=%x", sha256.Sum256(disk))
	if status, body := r.raw("PUT", "/api/v1/images/os/files/disk", disk, "Digest", sum); status != http.StatusOK {
		t.Errorf("the right one: %d %s", status, body)
	}
	if status, body := r.raw("PUT", "/api/v1/images/os/files/disk", disk); status != http.StatusConflict {
		t.Errorf("again: %d %s", status, body)
	}
	r.until("only the image is left", 5*time.Second, func() bool {
		entries, err := os.ReadDir(filepath.Join(dir, "images"))
		return err == nil && len(entries) == 1
	})
}
