package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// local serves a handler on a UNIX socket and gives a client of it.
func local(t *testing.T, h http.Handler) *client.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "nvc") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(srv.Close)
	return dial(t, client.Config{Socket: socket, RetryFor: 5 * time.Second})
}

func dial(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answer(w http.ResponseWriter, status int, doc any) {
	kind := "application/json"
	if _, bad := doc.(api.Error); bad {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc) //nolint:errchkjson // the caller compares what arrives
}

// breaks cuts the connection in the middle of a request.
func breaks(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

// flaky fails n times in a way and then succeeds.
type flaky struct {
	mu    sync.Mutex
	left  int
	how   func(http.ResponseWriter)
	seen  []string
	reply any
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r.Header.Get("Idempotency-Key"))
	if f.left > 0 {
		f.left--
		f.how(w)
		return
	}
	answer(w, http.StatusOK, f.reply)
}

func refuses(status int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		answer(w, status, api.Error{Status: status, Code: "x", Detail: "not now", Retryable: true})
	}
}

func TestTriesAgainOnlyWhereThatIsSafe(t *testing.T) {
	read := func(c *client.Client) error { _, err := c.VMs.Get(t.Context(), "web"); return err }
	create := func(c *client.Client) error {
		_, err := c.VMs.Create(t.Context(), api.VMCreate{Name: "web"})
		return err
	}
	act := func(c *client.Client) error { _, err := c.VMs.Start(t.Context(), "web"); return err }
	cases := []struct {
		name string
		call func(*client.Client) error
		how  func(http.ResponseWriter)
		want int
	}{
		{"a read over a broken connection", read, breaks, 3},
		{"a read over 503", read, refuses(503), 3},
		{"a creation over 503", create, refuses(503), 3},
		{"a creation over a broken connection", create, breaks, 3},
		{"an action over a broken connection", act, breaks, 1},
		{"an action over 503", act, refuses(503), 1},
		{"an action that was turned away at the door", act, refuses(429), 3},
		{"a conflict", read, refuses(409), 1},
		{"an internal error", read, refuses(500), 1},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := &flaky{left: 2, how: tc.how, reply: api.VM{}}
			err := tc.call(local(t, f))
			f.mu.Lock()
			defer f.mu.Unlock()
			// net/http itself repeats a request once that a stale connection ate
			if len(f.seen) < tc.want || (tc.want == 1 && len(f.seen) > 1) {
				t.Errorf("%d tries, want %d (%v)", len(f.seen), tc.want, err)
			}
			if (err == nil) != (tc.want == 3) {
				t.Errorf("error %v after %d tries", err, len(f.seen))
			}
			for _, key := range f.seen {
				if key != f.seen[0] {
					t.Errorf("the key changed from try to try: %q", f.seen)
				}
			}
		})
	}
}

func TestCreationsCarryAKey(t *testing.T) {
	f := &flaky{reply: api.Token{}}
	c := local(t, f)
	for range 2 {
		if _, err := c.Tokens.Create(t.Context(), api.TokenCreate{}); err != nil {
			t.Fatal(err)
		}
	}
	if f.seen[0] == "" || f.seen[0] == f.seen[1] {
		t.Errorf("keys %q: each creation needs its own", f.seen)
	}
}

func TestGoesToTheNextAddress(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, api.System{Cluster: "c"}) }))
	fp := serve(t, srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	c := dial(t, client.Config{Addresses: []string{dead, srv.Listener.Addr().String()}, Fingerprint: fp})
	for range 2 {
		s, err := c.System(t.Context())
		if err != nil || s.Cluster != "c" {
			t.Fatalf("got %v, %v", s, err)
		}
	}
}

func TestErrorsAreTheServers(t *testing.T) {
	want := api.Error{
		Title: "Conflict", Status: 409, Detail: "vm web is busy", Code: "vm_busy", Job: "j1", RequestID: "r1",
		Errors: []api.FieldError{{Code: "out_of_range", Field: "/cpus", Message: "is too much"}}, Blockers: []string{"vm web"},
	}
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 409, want) }))
	_, err := c.VMs.Stop(t.Context(), "web", api.VMStop{})
	var got *api.Error
	if !errors.As(err, &got) {
		t.Fatalf("%T is no *api.Error", err)
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Error(diff)
	}
}

func TestStrangersAreNamed(t *testing.T) {
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/vms/html" {
			http.Error(w, "<h1>teapot</h1>", http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, "<h1>hello</h1>")
	}))
	for _, name := range []string{"html", "ok"} {
		_, err := c.VMs.Get(t.Context(), name)
		if client.CodeOf(err) != client.CodeBadAnswer {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	c := dial(t, client.Config{Socket: filepath.Join(t.TempDir(), "none"), RetryFor: -1})
	_, err := c.System(t.Context())
	var e *api.Error
	if client.CodeOf(err) != client.CodeUnreachable || !errors.As(err, &e) || !e.Retryable {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.System(ctx); client.CodeOf(err) != client.CodeInterrupted || !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestListsWalkThroughTheirPages(t *testing.T) {
	var asked []string
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		page := api.List[api.VM]{Items: []api.VM{{Meta: api.Meta{Name: "a"}}, {Meta: api.Meta{Name: "b"}}}, Next: "2"}
		if r.URL.Query().Get("cursor") == "2" {
			page = api.List[api.VM]{Items: []api.VM{{Meta: api.Meta{Name: "c"}}}}
		}
		answer(w, 200, page)
	}))
	vms, err := client.Collect(c.VMs.All(t.Context(), client.ListOptions{Sort: "-name", Filter: map[string]string{"node": "n"}}))
	if err != nil || len(vms) != 3 || vms[2].Name != "c" {
		t.Fatalf("got %v, %v", vms, err)
	}
	if diff := cmp.Diff([]string{"node=n&sort=-name", "cursor=2&node=n&sort=-name"}, asked); diff != "" {
		t.Error(diff)
	}
	for range c.VMs.All(t.Context(), client.ListOptions{}) {
		break // stopping early asks for no further page
	}
	if len(asked) != 3 {
		t.Errorf("asked %q", asked)
	}
}

func TestChangesTellTheirAnswersApart(t *testing.T) {
	cases := map[string]struct {
		body string
		job  string
	}{
		"accepted": {`{"job":{"kind":"job","id":"j"}}`, "j"},
		"bare job": {`{"kind":"job","id":"j"}`, "j"},
		"nothing":  {`{"job":{"kind":"","id":""}}`, ""},
		"empty":    {``, ""},
		"vm":       {`{"kind":"vm","id":"v"}`, ""},
	}
	for name, tc := range cases {
		c := local(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tc.body) }))
		ch, err := c.VMs.Start(t.Context(), "web")
		if err != nil || (ch.Job != nil) != (tc.job != "") || (ch.Job != nil && ch.Job.ID != tc.job) {
			t.Errorf("%s: got %+v, %v", name, ch, err)
		}
	}
}

func TestPatchSaysWhatItBelieved(t *testing.T) {
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Match") != `"7"` {
			refuses(412)(w)
			return
		}
		answer(w, 200, api.VM{})
	}))
	if _, err := c.VMs.Patch(t.Context(), "web", 7, api.VMPatch{}); err != nil {
		t.Error(err)
	}
}

func TestRemoveByForceSaysWhatItBelieved(t *testing.T) {
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodDelete || r.URL.RequestURI() != "/api/v1/nodes/n1?force=true" || r.Header.Get("If-Match") != `"7"` {
			refuses(412)(w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	if err := c.Nodes.RemoveByForce(t.Context(), "n1", 7); err != nil {
		t.Error(err)
	}
}

// A client that is turned away waits as long as the server says and asks again, and
// not longer than its caller wants.
func TestWaitsAsLongAsTheServerSays(t *testing.T) {
	turnsAway := func(seconds string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", seconds)
			answer(w, http.StatusTooManyRequests, api.Error{Status: http.StatusTooManyRequests, Code: "rate_limited", Detail: "later", Retryable: true})
		}
	}
	f := &flaky{left: 2, how: turnsAway("1"), reply: api.Accepted{}}
	began := time.Now()
	if _, err := local(t, f).VMs.Start(t.Context(), "web"); err != nil || len(f.seen) != 3 {
		t.Errorf("%d tries: %v", len(f.seen), err)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("asked again after %v", took)
	}
	// longer than it may be tried again
	f = &flaky{left: 1, how: turnsAway("60"), reply: api.Accepted{}}
	if _, err := local(t, f).VMs.Start(t.Context(), "web"); client.CodeOf(err) != "rate_limited" || len(f.seen) != 1 {
		t.Errorf("%d tries: %v", len(f.seen), err)
	}
	// the caller gives up meanwhile
	ctx, cancel := context.WithCancel(t.Context())
	f = &flaky{left: 1, how: func(w http.ResponseWriter) { turnsAway("3")(w); cancel() }, reply: api.Accepted{}}
	if _, err := local(t, f).VMs.Start(ctx, "web"); err == nil || len(f.seen) != 1 {
		t.Errorf("%d tries: %v", len(f.seen), err)
	}
}
