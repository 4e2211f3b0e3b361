package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// kept is a log that is read afterwards.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *kept) has(word string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Contains(k.b.String(), word)
}

// That no agent answers in a guest, or that it refuses, is the guest's state: it is told
// with what to do, and is no failure that an operator looks for in the server's log.
func TestGuestsWithoutAnAgentAreNoFailure(t *testing.T) {
	var log kept
	r := startAs(t, storetest.New(t), t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(&log, nil))})
	r.nodes(1)
	r.image("tiny")
	r.does("POST", "/api/v1/vms", newVM("a"))
	refused := func(what, path string, body any, code, why string) {
		t.Helper()
		p, status := call[api.Error](r, "POST", path, body)
		if status != http.StatusConflict || p.Code != code || !strings.Contains(p.Detail, why) || p.Retryable {
			t.Errorf("%s: %d %+v", what, status, p)
		}
	}
	program := func(path string) api.VMExec { return api.VMExec{Command: []string{path}} }
	if _, status := call[api.VMExecResult](r, "POST", "/api/v1/vms/a/exec", program("true")); status != http.StatusOK {
		t.Errorf("a program: %d", status)
	}
	refused("a program that is not there", "/api/v1/vms/a/exec", program("/no/such"), "guest_agent", "refused")
	r.does("POST", "/api/v1/vms/a/pause", nil)
	refused("a program in a guest that is halted", "/api/v1/vms/a/exec", program("true"), "guest_agent", "does not answer")
	refused("a thaw of it", "/api/v1/vms/a/thaw", struct{}{}, "guest_agent", "paused")
	refused("a freeze of it", "/api/v1/vms/a/freeze", struct{}{}, "invalid_state", "paused")
	if !log.has("level=INFO") || log.has("level=ERROR") {
		t.Errorf("the server's log: %s", log.b.String())
	}
}
