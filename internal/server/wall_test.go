package server

import (
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// wall is a machine's clock whose wall time is wrong by as much as a test says. What
// passes, passes as ever.
type wall struct {
	clock.System

	mu  sync.Mutex
	off time.Duration
}

// Now implements clock.Clock.
func (w *wall) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.System.Now().Add(w.off)
}

func (w *wall) set(off time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = off
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// The wall clocks of the server and of the agents' machines step by hours and years,
// forward and back, together and apart, while VMs run and jobs are under way: no
// session ends, nothing is done to a VM that nobody asked for, what is asked for is
// done, and reconcilers run as often as ever.
func TestWallClocksStep(t *testing.T) {
	t.Parallel()
	server, agents := &wall{off: -2 * year}, &wall{off: -2 * year}
	r := startOn(t, storetest.New(t), t.TempDir(), server)
	r.clock = agents
	r.nodes(2)
	r.image("tiny")
	for n := range 4 {
		v := newVM(fmt.Sprintf("steady-%d", n))
		v.Start = true
		r.does("POST", "/api/v1/vms", v)
	}
	steady := r.hosts()
	// one job is under way all the while: there is no room for its VM
	large := newVM("large")
	large.MemoryBytes = 1 << 40
	if status, body := r.raw("POST", "/api/v1/vms", large); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	ids := map[string]bool{}
	runs := func() (total int64, of map[string]int64) {
		tasks, _ := call[api.List[api.Task]](r, "GET", "/api/v1/debug/tasks", nil)
		of = map[string]int64{}
		for _, k := range tasks.Items {
			total += k.Activations
			of[k.Name] = k.Activations
		}
		return total, of
	}
	before, _ := runs()
	began := (clock.System{}).Boot()
	steps := []struct{ server, agents time.Duration }{
		{-2*year + time.Hour, -2 * year}, {-2*year - time.Hour/2, -2*year + 3*time.Hour}, {-year, -year}, {0, -year}, {-year, 0}, {0, 0}, {-2 * year, -2 * year}, {0, 0},
	}
	for n, s := range steps {
		server.set(s.server)
		agents.set(s.agents)
		name := fmt.Sprintf("made-%d", n)
		v := newVM(name)
		v.Start = true
		a, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", v)
		if status != http.StatusAccepted || a.Job.State != "succeeded" {
			t.Fatalf("step %+v: %d %+v", s, status, a.Job)
		}
		if ids[a.Job.ID] || ids[a.Job.Target.ID] {
			t.Errorf("step %+v: an id was given twice", s)
		}
		ids[a.Job.ID], ids[a.Job.Target.ID] = true, true
		r.does("DELETE", "/api/v1/vms/"+name, nil)
		nodes, _ := call[api.List[api.Node]](r, "GET", "/api/v1/nodes", nil)
		for _, k := range nodes.Items {
			if k.Status.State != "ready" {
				t.Errorf("step %+v: the node %s is %s: %s", s, k.Name, k.Status.State, k.Status.Reason)
			}
		}
	}
	if got, _ := call[api.VM](r, "GET", "/api/v1/vms/large", nil); got.Status.State != "pending" {
		t.Errorf("the VM without room is %s", got.Status.State)
	}
	if a, status := call[api.Accepted](r, "DELETE", "/api/v1/vms/large?wait=20s", nil); status != http.StatusAccepted || a.Job.State != "cancelled" {
		t.Errorf("a creation that waits is ended by its VM's deletion: %d %+v", status, a.Job)
	}
	now := r.hosts()
	for file, content := range steady {
		if now[file] != content {
			t.Errorf("%s was\n%s\nand is\n%s", file, content, now[file])
		}
	}
	after, at := runs()
	// the one that runs most often does so every five seconds
	if most := int64(((clock.System{}).Boot()-began)/time.Second) + 60; after-before > most {
		t.Errorf("the reconcilers ran %d times, %d would be many", after-before, most)
	}
	r.until("reconcilers go on", 15*time.Second, func() bool {
		_, of := runs()
		return of["removed-nodes"] > at["removed-nodes"]
	})
}

// A server's clock is a year ahead: agents that open new sessions hear that their
// certificates have expired, have them renewed by themselves, and are welcome, also
// when the server's clock is right again. An agent whose own clock is wrong beyond
// what certificates bear finds no server, and its guests run on until it does.
func TestWrongWallClocks(t *testing.T) {
	t.Parallel()
	db, dir := storetest.New(t), t.TempDir()
	server, agents := &wall{}, &wall{}
	r := startOn(t, db, dir, server)
	r.clock = agents
	k, _ := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
	stop := r.runNodes(1, []string{k.Token})
	r.image("tiny")
	v := newVM("web")
	v.Start = true
	r.does("POST", "/api/v1/vms", v)
	steady := r.hosts()
	ready := func(why string) {
		t.Helper()
		r.until(why, 20*time.Second, func() bool {
			n, _ := call[api.Node](r, "GET", "/api/v1/nodes/sim-0001", nil)
			v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil)
			return n.Status.State == "ready" && v.Status.State == "running"
		})
		if now := r.hosts(); !maps.Equal(now, steady) {
			t.Errorf("%s: the host had\n%v\nand has\n%v", why, steady, now)
		}
	}
	expires := func() time.Time {
		n, _ := call[api.Node](r, "GET", "/api/v1/nodes/sim-0001", nil)
		return *n.Status.CertificateExpiresAt
	}
	first := expires()

	stop()
	server.set(year)
	stop = r.runNodes(1, nil) // returns once a server has welcomed it
	ready("the server's clock is a year ahead")
	if got := expires(); got.Sub(first) < year-day {
		t.Errorf("the certificate was renewed to %s, was %s", got, first)
	}
	stop()
	server.set(0)
	stop = r.runNodes(1, nil)
	ready("the server's clock is right again")
	stop()

	agents.set(year)
	told := r.runLogged(1)
	r.until("the agent with a wrong clock has tried", 20*time.Second, func() bool { return told.count("no session with a server") > 0 })
	if now := r.hosts(); !maps.Equal(now, steady) {
		t.Errorf("an agent with a wrong clock: the host had\n%v\nand has\n%v", steady, now)
	}
	agents.set(0)
	ready("the agent's clock is right again")
}

// A server's certificate that was made before its clock was put back is made again.
func TestServerCertificateFollowsTheClock(t *testing.T) {
	c := clock.NewFake()
	ca, err := pki.NewAuthority(id.New(), c.Now())
	if err != nil {
		t.Fatal(err)
	}
	certs := newCertificates(ca, []string{"cloud.example:8443"}, c)
	serial := func() string {
		t.Helper()
		got, err := certs.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := pki.ParseCert(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: got.Certificate[0]}))
		if err != nil {
			t.Fatal(err)
		}
		if now := c.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter.Add(-pki.ServerLife/2)) {
			t.Errorf("at %s it is good from %s to %s", now, leaf.NotBefore, leaf.NotAfter)
		}
		return leaf.SerialNumber.String()
	}
	first := serial()
	c.StepWall(pki.ServerLife / 3)
	if serial() != first {
		t.Error("made again too early")
	}
	c.StepWall(5 * year)
	ahead := serial()
	c.StepWall(-5 * year)
	if back := serial(); ahead == first || back == ahead {
		t.Errorf("first %s, five years ahead %s, back again %s", first, ahead, back)
	}
}

// What the database keeps by its own wall clock goes on when that clock is put back a
// year: moving what is recorded a year ahead is the same. Uploads get their day again,
// people's tokens are good for as long as they say.
func TestDatabaseClockPutBack(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.newImage("half")
	u := r.announceFile("half", make([]byte, 100), true)
	person, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "ci", Role: "reader"})
	for _, sql := range []string{
		"UPDATE image_uploads SET expires_at = expires_at + interval '1 year'",
		"UPDATE tokens SET expires_at = expires_at + interval '1 year', created_at = created_at + interval '1 year'",
	} {
		if _, err := db.Owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if as := r.remote(); as("GET", "/api/v1/vms", person.Token) != http.StatusOK {
		t.Error("a person's token is refused before its time")
	}
	// the reconcilers run at the start of a server
	r.stop()
	r = start(t, db, r.dir)
	var got api.ImageUpload
	r.until("the upload's day begins now", 10*time.Second, func() bool {
		got, _ = call[api.ImageUpload](r, "GET", "/api/v1/images/half/uploads/"+u.ID, nil)
		return got.ExpiresAt.Sub((clock.System{}).Now()) < 25*time.Hour
	})
	if left := got.ExpiresAt.Sub((clock.System{}).Now()); got.ID != u.ID || left < 23*time.Hour {
		t.Errorf("%+v: the upload is kept for %s", got, left)
	}
}

// runLogged runs nodes that have joined before until the test ends, and keeps their
// log.
func (r *running) runLogged(n int) *logged {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log, done := &logged{}, make(chan struct{})
	go func() {
		defer close(done)
		_ = daemon.RunSim(ctx, daemon.Options{
			DataDir: filepath.Join(r.dir, "sim"), Clock: r.clock, Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)), Ready: func() {},
		}, n, nil)
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	return log
}
