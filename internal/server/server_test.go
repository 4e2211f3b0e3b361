package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
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

// running is a whole server on a database of its own, with its local client.
type running struct {
	t      *testing.T
	info   Info
	dir    string
	socket string
	stop   func()
	http   *http.Client
	clock  clock.Clock
}

// start runs a server until the test ends.
func start(t *testing.T, db *storetest.DB, dir string) *running {
	t.Helper()
	return startOn(t, db, dir, clock.System{})
}

// startOn runs a server by a clock of the test's.
func startOn(t *testing.T, db *storetest.DB, dir string, clk clock.Clock) *running {
	t.Helper()
	return startAt(t, db, dir, clk, "127.0.0.1:0")
}

// startAt runs a server that listens on an address.
func startAt(t *testing.T, db *storetest.DB, dir string, clk clock.Clock, listen string) *running {
	t.Helper()
	return startAs(t, db, dir, Options{Clock: clk, Listen: listen})
}

// startAs runs a server with options of the test's.
func startAs(t *testing.T, db *storetest.DB, dir string, o Options) *running {
	t.Helper()
	// a test's own folder is too long for a socket
	sockets, err := os.MkdirTemp("", "nc") //nolint:usetesting // a test's own folder is too long for sockets, and closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	r := &running{t: t, dir: dir, socket: filepath.Join(sockets, "api.sock"), clock: o.Clock}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Info, 1), make(chan error, 1)
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	o.DatabaseURL, o.DataDir, o.Socket, o.SetupToken = db.AppURL, dir, r.socket, true
	o.Version, o.Log, o.Ready = "test", cmp.Or(o.Log, log), func(i Info) { ready <- i }
	go func() { ended <- Run(ctx, o) }()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		ended <- nil
	}
	select {
	case r.info = <-ready:
	case err := <-ended:
		t.Fatalf("the server did not start: %v", err)
	}
	t.Cleanup(r.stop)
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", r.socket)
	}}}
	return r
}

type testWriter struct{ t *testing.T }

// Write implements io.Writer.
func (w testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	return len(p), nil
}

// call sends a request as the local administrator and decodes the answer.
func call[T any](r *running, method, path string, body any, headers ...string) (T, int) {
	r.t.Helper()
	var out T
	status, raw := r.raw(method, path, body, headers...)
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			r.t.Fatalf("%s %s answered %d %s: %v", method, path, status, raw, err)
		}
	}
	return out, status
}

func (r *running) raw(method, path string, body any, headers ...string) (int, []byte) {
	r.t.Helper()
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		rd = bytes.NewReader(b)
	case string:
		rd = bytes.NewReader([]byte(b))
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		rd = bytes.NewReader(enc)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://local"+path, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, b
}

// nodes runs n simulated nodes that join the server, until the test ends.
func (r *running) nodes(n int) {
	r.t.Helper()
	var tokens []string
	for range n {
		k, status := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
		if status != http.StatusCreated {
			r.t.Fatalf("no join token: %d", status)
		}
		tokens = append(tokens, k.Token)
	}
	r.runNodes(n, tokens)
}

// runNodes runs n simulated nodes, of which some may have joined before, until
// the test ends or the function it gives is called.
func (r *running) runNodes(n int, tokens []string) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- daemon.RunSim(ctx, daemon.Options{
			DataDir: filepath.Join(r.dir, "sim"), Clock: r.clock, Version: "test",
			Log: slog.New(slog.NewTextHandler(testWriter{r.t}, nil)), Ready: func() { close(ready) },
		}, n, tokens)
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

// kernelFile is the least that is a Linux kernel to the inspector.
func kernelFile() []byte {
	b := make([]byte, 1024)
	copy(b[0x202:], "HdrS")
	return b
}

// image makes a ready kernel image.
func (r *running) image(name string) {
	r.t.Helper()
	if _, status := call[api.Image](r, "POST", "/api/v1/images", api.ImageCreate{Name: name, Type: "kernel", Cmdline: "console=ttyS0"}); status != http.StatusCreated {
		r.t.Fatalf("create image: %d", status)
	}
	var img api.Image
	for role, b := range map[string][]byte{"kernel": kernelFile(), "initrd": []byte("070701 " + id.New().String())} {
		var status int
		if img, status = call[api.Image](r, "PUT", "/api/v1/images/"+name+"/files/"+role, b); status != http.StatusOK {
			r.t.Fatalf("upload %s: %d %+v", role, status, img)
		}
	}
	if img.Status.State != "ready" {
		r.t.Fatalf("the image is %s", img.Status.State)
	}
}

func newVM(name string) api.VMCreate {
	return api.VMCreate{Name: name, CPUs: 1, MemoryBytes: 128 << 20, Image: "tiny", Disks: []api.VMDiskCreate{{SizeBytes: 64 << 20}}, Start: true}
}

// A VM's whole life over the API, on simulated nodes, with one server that is
// stopped and started again in the middle.
func TestLifeOfAVM(t *testing.T) {
	db, dir := storetest.New(t), t.TempDir()
	r := start(t, db, dir)
	if r.info.SetupToken == "" || r.info.Fingerprint == "" {
		t.Errorf("info %+v", r.info)
	}
	r.nodes(2)
	r.image("tiny")
	a, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", newVM("web-1"), "Idempotency-Key", "k1")
	if status != http.StatusAccepted || a.Job.State != "succeeded" {
		t.Fatalf("create: %d %+v", status, a)
	}
	again, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", newVM("web-1"), "Idempotency-Key", "k1")
	if status != http.StatusAccepted || again.Job.ID != a.Job.ID {
		t.Errorf("the same key made another job: %d %+v", status, again)
	}
	v, _ := call[api.VM](r, "GET", "/api/v1/vms/web-1", nil)
	if v.Status.State != "running" || v.Status.OwnerEpoch != 1 || v.Status.Node == "" {
		t.Errorf("after create: %+v", v.Status)
	}
	for _, step := range []struct{ verb, state string }{
		{"pause", "paused"}, {"resume", "running"}, {"restart", "running"}, {"stop", "stopped"}, {"start", "running"},
	} {
		a, status := call[api.Accepted](r, "POST", "/api/v1/vms/web-1/"+step.verb+"?wait=20s", nil)
		if status != http.StatusAccepted || a.Job.State != "succeeded" {
			t.Fatalf("%s: %d %+v", step.verb, status, a)
		}
		if v, _ := call[api.VM](r, "GET", "/api/v1/vms/web-1", nil); v.Status.State != step.state {
			t.Errorf("after %s: %+v", step.verb, v.Status)
		}
	}
	if e, status := call[api.Error](r, "DELETE", "/api/v1/images/tiny", nil); status != http.StatusConflict || e.Code != "in_use" || len(e.Blockers) != 1 {
		t.Errorf("delete an image in use: %d %+v", status, e)
	}
	if a, status := call[api.Accepted](r, "DELETE", "/api/v1/vms/web-1?wait=20s", nil); status != http.StatusAccepted || a.Job.State != "succeeded" {
		t.Fatalf("delete: %d %+v", status, a)
	}
	if _, status := call[api.Error](r, "GET", "/api/v1/vms/web-1", nil); status != http.StatusNotFound {
		t.Errorf("after delete: %d", status)
	}
	if a, _ := call[api.Accepted](r, "DELETE", "/api/v1/images/tiny?wait=20s", nil); a.Job.State != "succeeded" {
		t.Errorf("delete image: %+v", a)
	}
	ver, _ := call[api.AuditVerified](r, "GET", "/api/v1/audit/verify", nil)
	if !ver.Intact {
		t.Errorf("audit: %+v", ver)
	}
}

// remote gives a client of the TLS port, with a bearer token; it checks no
// certificate, since what it tests is the gate.
func (r *running) remote() func(method, path, token string) int {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}}
	return func(method, path, token string) int {
		r.t.Helper()
		req, err := http.NewRequestWithContext(r.t.Context(), method, "https://"+r.info.Address+path, strings.NewReader(""))
		if err != nil {
			r.t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		req.Header.Set("Accept", "text/event-stream")
		resp, err := c.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
}

// wait lets the server's loops go on for a moment.
func (r *running) wait() {
	if err := (clock.System{}).Sleep(r.t.Context(), 50*time.Millisecond); err != nil {
		r.t.Fatal(err)
	}
}
