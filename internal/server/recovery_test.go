package server

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// again runs the first n simulated nodes anew, which dial this server.
func (r *running) again(n int) (stop func()) {
	r.t.Helper()
	sys, status := call[api.System](r, "GET", "/api/v1/system", nil)
	if status != http.StatusOK {
		r.t.Fatalf("system: %d", status)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- daemon.RunSim(ctx, daemon.Options{
			DataDir: filepath.Join(r.dir, "sim"), Clock: clock.System{}, Version: "test", Servers: sys.Servers,
			Log: slog.New(slog.NewTextHandler(testWriter{r.t}, nil)), Ready: func() { close(ready) },
		}, n, nil)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	r.t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		r.t.Fatalf("the nodes did not come up: %v", err)
	case <-time.After(30 * time.Second):
		r.t.Fatal("the nodes did not come up in 30 s")
	}
	return stop
}

// does asks for a change and waits for its job.
func (r *running) does(method, path string, body any) {
	r.t.Helper()
	out, status := call[api.Accepted](r, method, path+"?wait=20s", body)
	if status != http.StatusAccepted || out.Job.State != "succeeded" {
		r.t.Fatalf("%s %s: %d %+v", method, path, status, out)
	}
}

// code is the error that a request is refused with.
func (r *running) code(method, path string, body any) string {
	r.t.Helper()
	out, _ := call[api.Error](r, method, path, body)
	return out.Code
}

func (r *running) recovery() api.Recovery {
	r.t.Helper()
	out, status := call[api.Recovery](r, "GET", "/api/v1/recovery", nil)
	if status != http.StatusOK {
		r.t.Fatalf("recovery: %d", status)
	}
	return out
}

func on(node, name string) api.VMCreate {
	v := newVM(name)
	v.Node, v.Start = node, true
	return v
}

// restored puts the database back as 'novacron db restore' does.
func restored(t *testing.T, db *storetest.DB, past *storetest.Past) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	before, err := store.ReadFacts(t.Context(), conn)
	_ = conn.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	past.PutBack(t, func(ctx context.Context, conn *pgx.Conn) error {
		return store.MarkRestored(ctx, conn, store.Restored{BackupOf: time.Unix(1700000000, 0), Incarnation: id.New(), Before: &before, By: "test"})
	})
}

// A node is away when the difference is confirmed: what is on it stays held until
// it is back and confirmed, too. And a server that is killed in the middle of a
// confirmation has done nothing or all of it.
func TestRecoveryWithANodeAway(t *testing.T) {
	db, dir := storetest.New(t), t.TempDir()
	first := start(t, db, dir)
	var tokens []string
	for range 2 {
		k, _ := call[api.NodeToken](first, "POST", "/api/v1/node-tokens", nil)
		tokens = append(tokens, k.Token)
	}
	stopNodes := first.runNodes(2, tokens)
	first.image("tiny")
	first.does("POST", "/api/v1/vms", on("sim-0001", "a"))
	first.does("POST", "/api/v1/vms", on("sim-0002", "b"))
	past := db.Save(t)
	for _, name := range []string{"a", "b"} {
		first.does("POST", "/api/v1/vms/"+name+"/stop", nil)
		first.does("POST", "/api/v1/vms/"+name+"/start", nil)
	}
	first.does("POST", "/api/v1/vms", on("sim-0002", "c"))
	stopNodes()
	first.stop()
	restored(t, db, past)

	killed, kill := startChild(t, db, dir)
	stopNodes = killed.again(1)
	r := killed.recovery()
	if r.Cause != "restored" || len(r.Nodes) != 2 || r.Nodes[0].State != "compared" || r.Nodes[1].State != "away" || len(r.VMs) != 1 {
		t.Fatalf("%+v", r)
	}
	if got := killed.code("POST", "/api/v1/vms/a/stop", nil); got != "recovery_hold" {
		t.Errorf("stop in hold: %q", got)
	}
	// the confirmation waits for a row of ours when its server dies
	tx, err := db.Owner.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "SELECT FROM recovery FOR UPDATE")
	}
	if err != nil {
		t.Fatal(err)
	}
	confirm := api.RecoveryConfirm{Plan: r.Plan}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _, _ = killed.try("POST", "/api/v1/recovery/confirm", confirm)
	}()
	killed.until("the confirmation is under way", 10*time.Second, func() bool {
		var waits bool
		err := db.App.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')").Scan(&waits)
		return err == nil && waits
	})
	kill()
	<-asked
	stopNodes()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	second := start(t, db, dir)
	stopNodes = second.again(1)
	if now := second.recovery(); !now.Held || now.Plan != r.Plan {
		t.Fatalf("after the kill: %+v", now)
	}
	var done api.Recovery
	for range 2 {
		var status int
		if done, status = call[api.Recovery](second, "POST", "/api/v1/recovery/confirm", confirm); status != http.StatusOK || done.Confirmed != r.Plan {
			t.Fatalf("confirm: %d %+v", status, done)
		}
	}
	if !done.Held || done.Cause != "" || len(done.Nodes) != 1 || done.Nodes[0].Name != "sim-0002" {
		t.Errorf("the node that was away: %+v", done)
	}
	second.does("POST", "/api/v1/vms/a/stop", nil)
	second.does("POST", "/api/v1/vms/a/start", nil)
	if got := second.code("POST", "/api/v1/vms/b/stop", nil); got != "recovery_hold" {
		t.Errorf("stop on the held node: %q", got)
	}
	if _, body := second.raw("GET", "/metrics", nil); !strings.Contains(string(body), "novacron_recovery_hold 0") || !strings.Contains(string(body), "novacron_recovery_held_nodes 1") {
		t.Error("the metrics tell of no hold")
	}

	stopNodes()
	second.again(2)
	second.until("b is shown as it is", 10*time.Second, func() bool {
		v, _ := call[api.VM](second, "GET", "/api/v1/vms/b", nil)
		return v.Status.State == "running"
	})
	if got := second.code("POST", "/api/v1/vms/b/stop", nil); got != "recovery_hold" {
		t.Errorf("stop after the node is back: %q", got)
	}
	r = second.recovery()
	if len(r.VMs) != 2 {
		t.Fatalf("%+v", r)
	}
	if done, status := call[api.Recovery](second, "POST", "/api/v1/recovery/confirm", api.RecoveryConfirm{Plan: r.Plan}); status != http.StatusOK || done.Held {
		t.Fatalf("confirm: %d %+v", status, done)
	}
	for _, name := range []string{"a", "b", "c"} {
		second.does("POST", "/api/v1/vms/"+name+"/stop", nil)
		second.does("DELETE", "/api/v1/vms/"+name, nil)
	}
}
