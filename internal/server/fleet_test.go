package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// childEnv tells the test's binary to be a server that can be killed.
const childEnv = "NOVACRON_TEST_SERVER"

func TestMain(m *testing.M) {
	if opts := os.Getenv(childEnv); opts != "" {
		if err := child(opts); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type childOptions struct{ DatabaseURL, Dir, Socket string }

func child(opts string) error {
	var o childOptions
	if err := json.Unmarshal([]byte(opts), &o); err != nil {
		return err
	}
	return Run(context.Background(), Options{
		DatabaseURL: o.DatabaseURL, DataDir: o.Dir, Listen: "127.0.0.1:0", Socket: o.Socket, SocketUIDs: []uint32{uint32(os.Getuid())}, Version: "test",
		Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Ready: func(Info) { fmt.Println("ready") },
	})
}

// startChild runs a server in a process of its own and gives the way to kill it.
func startChild(t *testing.T, db *storetest.DB, dir string) (r *running, kill func()) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "nc") //nolint:usetesting // a test's own folder is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	r = &running{t: t, dir: dir, socket: filepath.Join(sockets, "api.sock")}
	opts, err := json.Marshal(childOptions{db.AppURL, dir, r.socket})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(opts))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = testWriter{t}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the server did not start: %q %v", line, err)
	}
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", r.socket)
	}}}
	return r, kill
}

// follower reads events and goes on at another server when one ends, or when it
// has read enough from this one.
type follower struct {
	at []*running
	// turn, unless 0, is how many events it reads before it connects anew
	turn int64
	last atomic.Int64
	bad  atomic.Pointer[string]
	conn int
}

func (f *follower) take(seq int64) {
	if last := f.last.Load(); seq != last+1 && f.bad.Load() == nil {
		bad := fmt.Sprintf("event %d follows on %d", seq, last)
		f.bad.Store(&bad)
	}
	f.last.Store(seq)
}

// run follows until ctx ends, resuming after the last event.
func (f *follower) run(ctx context.Context, once func(ctx context.Context, r *running, after int64) error) {
	for ctx.Err() == nil {
		r := f.at[f.conn%len(f.at)]
		f.conn++
		if once(ctx, r, f.last.Load()) != nil {
			_ = (clock.System{}).Sleep(ctx, 5*time.Millisecond)
		}
	}
}

func (f *follower) enough(begun int64) bool { return f.turn > 0 && f.last.Load()-begun >= f.turn }

func (f *follower) sse(ctx context.Context, r *running, after int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://local/api/v1/events?after=0", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if after > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(after, 10)) // as browsers do
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !f.enough(after) {
		if n, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			seq, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				return err
			}
			f.take(seq)
		}
	}
	return lines.Err()
}

func (f *follower) ws(ctx context.Context, r *running, after int64) error {
	conn, resp, err := websocket.Dial(ctx, "ws://local/api/v1/events?after="+strconv.FormatInt(after, 10), &websocket.DialOptions{HTTPClient: r.http})
	if err != nil {
		return err
	}
	_ = resp.Body // hijacked
	defer func() { _ = conn.CloseNow() }()
	for !f.enough(after) {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var e api.Event
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		f.take(e.Seq)
	}
	return nil
}

// try is call that may fail, because its server was killed.
func (r *running) try(method, path string, body any, headers ...string) (status int, out api.Accepted, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, out, err
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://local"+path, strings.NewReader(string(b)))
	if err != nil {
		return 0, out, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, out, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	return resp.StatusCode, out, err
}

// until looks again and again until a state is there.
func (r *running) until(what string, d time.Duration, is func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	defer cancel()
	for !is() {
		if (clock.System{}).Sleep(ctx, 20*time.Millisecond) != nil {
			r.t.Fatalf("never: %s", what)
		}
	}
}

// Two servers on one database: both reach the nodes; one is killed in the middle
// of many creations; what it acknowledged, and what it may have, is done exactly
// once; readers of events go on at the other one without gap or duplicate.
func TestTwoServers(t *testing.T) {
	db, dir := storetest.New(t), t.TempDir()
	b := start(t, db, dir) // makes the cluster
	a, kill := startChild(t, db, dir)
	b.nodes(2)
	b.image("tiny")
	if v, status := call[api.Accepted](a, "POST", "/api/v1/vms?wait=20s", newVM("first")); status != http.StatusAccepted || v.Job.State != "succeeded" {
		t.Fatalf("create at the first server: %d %+v", status, v)
	}
	for name, r := range map[string]*running{"first": a, "second": b} {
		r.until("the "+name+" server reaches the VM's node", 10*time.Second, func() bool {
			status, body := r.raw("GET", "/api/v1/vms/first/log", nil)
			return status == http.StatusOK && len(body) > 0
		})
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	readers := map[string]*follower{
		"SSE": {at: []*running{a, b}}, "WebSocket": {at: []*running{a, b}},
		"SSE often": {at: []*running{a, b}, turn: 7}, "WebSocket often": {at: []*running{b, a}, turn: 11},
	}
	var following sync.WaitGroup
	for name, f := range readers {
		once := f.sse
		if strings.HasPrefix(name, "WebSocket") {
			once = f.ws
		}
		following.Go(func() { f.run(ctx, once) })
	}

	const n = 24
	var acknowledged atomic.Int64
	var creating sync.WaitGroup
	for i := range n {
		creating.Go(func() {
			name := fmt.Sprintf("vm-%d", i)
			for _, r := range []*running{a, b} {
				status, out, err := r.try("POST", "/api/v1/vms", newVM(name), "Idempotency-Key", name)
				if err == nil && status == http.StatusAccepted && out.Job.ID != "" {
					if acknowledged.Add(1) == n/3 {
						kill()
					}
					return
				}
			}
			t.Errorf("%s was accepted by neither server", name)
		})
	}
	creating.Wait()
	kill()

	b.until("every VM runs", 30*time.Second, func() bool {
		vms, _ := call[api.List[api.VM]](b, "GET", "/api/v1/vms?limit=1000", nil)
		running := 0
		for _, v := range vms.Items {
			if v.Status.State == "running" && v.Status.Job == "" {
				running++
			}
		}
		return running == n+1
	})
	b.until("each creation is in the audit log once", 10*time.Second, func() bool {
		records, _ := call[api.List[api.AuditRecord]](b, "GET", "/api/v1/audit?action=vm.create&outcome=accepted&limit=1000", nil)
		if len(records.Items) > n+1 {
			t.Fatalf("%d records of %d creations", len(records.Items), n+1)
		}
		return len(records.Items) == n+1
	})
	jobs, _ := call[api.List[api.Job]](b, "GET", "/api/v1/jobs?kind=vm.create&limit=1000", nil)
	for _, j := range jobs.Items {
		if j.State != "succeeded" {
			t.Errorf("job %s of %s is %s: %+v", j.ID, j.Target.Name, j.State, j.Error)
		}
	}
	var newest int64
	b.until("every event has its number", 10*time.Second, func() bool {
		var open int
		err := db.App.QueryRow(ctx, "SELECT max(seq), count(*) FILTER (WHERE seq IS NULL) FROM events").Scan(&newest, &open)
		return err == nil && open == 0
	})
	for name, f := range readers {
		b.until(name+" has read every event", 10*time.Second, func() bool { return f.last.Load() >= newest })
		if bad := f.bad.Load(); bad != nil {
			t.Errorf("%s: %s", name, *bad)
		}
	}
	cancel()
	following.Wait()
}
