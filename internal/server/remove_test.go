package server

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// logged keeps a log for a test to look at.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// A node falls silent and is removed by force, over the API: a deletion that
// waited for it ends, the other VM is lost and says so, and the node that returns
// is refused, tells its log once, and changes nothing.
func TestNodeRemovedByForce(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.New(t), t.TempDir())
	k, _ := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
	stop := r.runNodes(1, []string{k.Token})
	r.image("tiny")
	for _, name := range []string{"web", "db"} {
		if a, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", newVM(name)); status != http.StatusAccepted || a.Job.State != "succeeded" {
			t.Fatalf("create: %d %+v", status, a)
		}
	}
	force := func() (api.Error, int) { return call[api.Error](r, "DELETE", "/api/v1/nodes/sim-0001?force=true", nil) }
	if e, status := force(); status != http.StatusConflict || e.Code != "invalid_state" || !strings.Contains(e.Detail, "reports") {
		t.Errorf("a node that reports: %d %+v", status, e)
	}
	if e, status := call[api.Error](r, "DELETE", "/api/v1/nodes/sim-0001?force=yes", nil); status != http.StatusUnprocessableEntity {
		t.Errorf("force=yes: %d %+v", status, e)
	}
	stop()
	a, status := call[api.Accepted](r, "DELETE", "/api/v1/vms/web", nil)
	if status != http.StatusAccepted {
		t.Fatalf("delete on a silent node: %d", status)
	}
	r.until("the deletion waits and says for what", 30*time.Second, func() bool {
		j, _ := call[api.Job](r, "GET", "/api/v1/jobs/"+a.Job.ID, nil)
		return j.State == "waiting" && strings.HasPrefix(j.WaitReason, "node sim-0001 does not report: the VM is removed when it returns")
	})
	r.until("the node is silent for long enough", 30*time.Second, func() bool {
		e, status := force()
		if status != http.StatusNoContent && e.Code != "invalid_state" {
			t.Fatalf("force: %d %+v", status, e)
		}
		return status == http.StatusNoContent
	})
	r.until("the deletion ends", 10*time.Second, func() bool {
		j, _ := call[api.Job](r, "GET", "/api/v1/jobs/"+a.Job.ID, nil)
		return j.State == "succeeded"
	})
	if e, status := call[api.Error](r, "POST", "/api/v1/vms/db/start", nil); status != http.StatusConflict || e.Code != "node_removed" {
		t.Errorf("start a lost VM: %d %+v", status, e)
	}
	if e, status := call[api.Error](r, "GET", "/api/v1/vms/db/log", nil); status != http.StatusConflict || e.Code != "node_removed" {
		t.Errorf("the log of a lost VM: %d %+v", status, e)
	}
	lost, _ := call[api.VM](r, "GET", "/api/v1/vms/db", nil)
	if lost.Status.State != "failed" || !strings.Contains(lost.Status.Reason, "sim-0001 was removed by force") || lost.Status.Node != "" {
		t.Errorf("%+v", lost.Status)
	}

	log := &logged{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- daemon.RunSim(ctx, daemon.Options{
			DataDir: filepath.Join(r.dir, "sim"), Clock: clock.System{}, Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)),
		}, 1, nil)
	}()
	t.Cleanup(func() { cancel(); <-done })
	const told = "this node was removed from the cluster: no server takes it back"
	r.until("the node that returns says that it was removed", 20*time.Second, func() bool { return log.count(told) > 0 })
	for range 20 { // it dials on, quietly
		r.wait()
	}
	if n := log.count(told); n != 1 {
		t.Errorf("it says so %d times", n)
	}
	if log.count("joined a server") != 0 {
		t.Error("a removed node was welcomed")
	}
	if l, _ := call[api.List[api.Node]](r, "GET", "/api/v1/nodes", nil); len(l.Items) != 0 {
		t.Errorf("nodes: %+v", l.Items)
	}
	if again, _ := call[api.VM](r, "GET", "/api/v1/vms/db", nil); again.Revision != lost.Revision || again.Status.Reason != lost.Status.Reason {
		t.Errorf("%+v, was %+v", again, lost)
	}
	if a, status := call[api.Accepted](r, "DELETE", "/api/v1/vms/db?wait=20s", nil); status != http.StatusAccepted || a.Job.State != "succeeded" {
		t.Errorf("delete a lost VM: %d %+v", status, a)
	}
}

// A ticket for a bulk stream is worth nothing to a node without a session here,
// such as one that was removed, and is not spent.
func TestBulkNeedsASession(t *testing.T) {
	a := &agents{tickets: newTickets(clock.System{}), clock: clock.System{}, log: slog.New(slog.DiscardHandler), sessions: map[id.ID]*session{}}
	ticket := a.tickets.issue(func(c net.Conn) {
		_, _ = io.WriteString(c, "bulk")
		_ = c.Close()
	})
	for _, c := range []struct {
		session bool
		want    string
	}{{false, ""}, {true, "bulk"}} {
		server, client := nodeConn(t)
		node, _, err := peerNode(server)
		if err != nil {
			t.Fatal(err)
		}
		if c.session {
			a.sessions[node] = &session{node: node}
		}
		go func() {
			a.bulk(t.Context(), server)
			_ = server.Close()
		}()
		go func() { _, _ = io.WriteString(client, ticket+"\n") }()
		got, _ := io.ReadAll(client)
		if string(got) != c.want {
			t.Errorf("with a session %v it gets %q", c.session, got)
		}
	}
}
