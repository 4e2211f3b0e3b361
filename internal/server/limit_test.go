package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// answer is what came of a request over TLS.
type answer struct {
	status int
	after  string
	body   []byte
}

func (a answer) problem(t *testing.T) api.Error {
	t.Helper()
	var e api.Error
	if err := json.Unmarshal(a.body, &e); err != nil {
		t.Fatalf("%d %q is no problem: %v", a.status, a.body, err)
	}
	return e
}

// refused checks that it is the answer of a limit.
func (a answer) refused(t *testing.T) {
	t.Helper()
	e := a.problem(t)
	seconds, err := strconv.Atoi(a.after)
	if a.status != http.StatusTooManyRequests || e.Code != "rate_limited" || !e.Retryable || e.RequestID == "" || err != nil || seconds < 1 {
		t.Errorf("%d, Retry-After %q, %+v", a.status, a.after, e)
	}
}

// field reads a text of a document.
func field(t *testing.T, doc []byte, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(doc, &m); err != nil {
		t.Fatal(err)
	}
	text, _ := m[name].(string)
	return text
}

// asker asks over TLS with a token.
type asker func(method, path string, body any, headers ...string) answer

func (r *running) asker(token string) asker {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}}
	r.t.Cleanup(c.CloseIdleConnections)
	return func(method, path string, body any, headers ...string) answer {
		enc, err := json.Marshal(body)
		if err != nil {
			r.t.Error(err)
		}
		if body == nil {
			enc = nil
		}
		req, err := http.NewRequestWithContext(r.t.Context(), method, "https://"+r.info.Address+path, bytes.NewReader(enc))
		if err != nil {
			r.t.Error(err)
			return answer{}
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := c.Do(req)
		if err != nil {
			r.t.Errorf("%s %s: %v", method, path, err)
			return answer{}
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			r.t.Error(err)
		}
		return answer{resp.StatusCode, resp.Header.Get("Retry-After"), got}
	}
}

// token makes an API token.
func (r *running) token(name string) api.Token {
	r.t.Helper()
	k, status := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: name, Role: "administrator"})
	if status != http.StatusCreated {
		r.t.Fatalf("token: %d", status)
	}
	return k
}

var gaugeLine = regexp.MustCompile(`(?m)^(novacron_http_\S+) (\S+)$`)

// gauges reads the figures of the limits from the metrics.
func gauges(t *testing.T, ask asker) map[string]float64 {
	t.Helper()
	a := ask("GET", "/metrics", nil)
	if a.status != http.StatusOK {
		t.Fatalf("the metrics are not answered: %d %s", a.status, a.body)
	}
	out := map[string]float64{}
	for _, m := range gaugeLine.FindAllSubmatch(a.body, -1) {
		out[string(m[1])], _ = strconv.ParseFloat(string(m[2]), 64)
	}
	return out
}

// written is every row that a request could write, without what comes later of
// itself, and without records of some actions and events of some kinds.
func written(t *testing.T, db *storetest.DB, but ...string) string {
	t.Helper()
	var out strings.Builder
	for _, table := range []string{"vms", "images", "image_files", "jobs", "job_steps", "storage_volumes", "tokens", "idempotency_keys", "console_tickets", "events", "audit_log"} {
		var rows string
		what := "to_jsonb(x) - 'seq' - 'hash' - 'used_at'" // numbers come later, and a token's use is noted to the minute
		all := "SELECT coalesce(string_agg((" + what + ")::text, E'\\n' ORDER BY (" + what + ")::text), '') FROM " + table + " x WHERE NOT coalesce(to_jsonb(x)->>'action', to_jsonb(x)->>'kind', '') = ANY($1)"
		if err := db.Owner.QueryRow(t.Context(), all, append([]string{}, but...)).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, table, rows)
	}
	return out.String()
}

// One account floods, and what it asks for hangs: its places and its line fill, the
// rest is refused and changes nothing, and nobody else waits for it. Of what it
// asked, exactly what was answered with success happened.
func TestFloodOfOneAccount(t *testing.T) {
	db := storetest.New(t)
	r := startAs(t, db, t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{Requests: 6}})
	r.image("tiny")
	if _, status := call[api.Accepted](r, "POST", "/api/v1/vms", newVM("a")); status != http.StatusAccepted {
		t.Fatalf("create: %d", status)
	}
	other := r.asker(r.token("other").Token)
	if a := other("GET", "/api/v1/vms/a", nil); a.status != http.StatusOK {
		t.Fatalf("the other account: %d", a.status)
	}
	lock, err := db.Owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "SELECT 1 FROM vms FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	const places, line, beyond = 4, 1024, 60
	var mu sync.Mutex
	got := map[int]int{}
	var wg sync.WaitGroup
	for i := range places + line + beyond {
		wg.Go(func() {
			status, _ := r.raw("PATCH", "/api/v1/vms/a", map[string]any{"labels": map[string]string{"n": fmt.Sprint(i)}})
			mu.Lock()
			defer mu.Unlock()
			got[status]++
		})
	}
	r.until("places and line are full", 20*time.Second, func() bool {
		g := gauges(t, other)
		return g["novacron_http_requests_at_work"] == places && g["novacron_http_requests_waiting"] == line && g[`novacron_http_refused_total{limit="busy"}`] == beyond
	})
	before := written(t, db)
	for range 100 {
		if a := other("GET", "/api/v1/vms/a", nil); a.status != http.StatusOK {
			t.Fatalf("the other account waits or is refused: %d %s", a.status, a.body)
		}
	}
	if a := other("GET", "/readyz", nil); a.status != http.StatusOK {
		t.Errorf("readiness: %d", a.status)
	}
	if a := other("GET", "/healthz", nil); a.status != http.StatusOK {
		t.Errorf("health: %d", a.status)
	}
	if after := written(t, db); after != before {
		t.Errorf("refused requests wrote: %s, then %s", before, after)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	var changes int
	if err := db.Owner.QueryRow(t.Context(), "SELECT count(*) FROM audit_log WHERE action = 'vm.update'").Scan(&changes); err != nil {
		t.Fatal(err)
	}
	if got[http.StatusTooManyRequests] < beyond || got[http.StatusOK]+got[http.StatusTooManyRequests] != places+line+beyond {
		t.Errorf("answers %v", got)
	}
	if changes != got[http.StatusOK] {
		t.Errorf("%d changes for %d answers of success", changes, got[http.StatusOK])
	}
	if g := gauges(t, other); g["novacron_http_requests_at_work"] != 0 || g["novacron_http_requests_waiting"] != 0 {
		t.Errorf("left over: %v", g)
	}
}

// An account that asks too fast is told when to come again, and nothing is changed;
// other accounts, health and metrics are answered.
func TestRateOfAnAccount(t *testing.T) {
	db := storetest.New(t)
	r := startAs(t, db, t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{AccountRate: 10}})
	fast, calm := r.asker(r.token("fast").Token), r.asker(r.token("calm").Token)
	if a := fast("GET", "/api/v1/vms", nil); a.status != http.StatusOK {
		t.Fatalf("%d", a.status)
	}
	made, refused := 0, 0
	for i := range 100 {
		a := fast("POST", "/api/v1/images", api.ImageCreate{Name: fmt.Sprint("i", i), Type: "kernel"})
		if a.status == http.StatusCreated {
			made++
			continue
		}
		a.refused(t)
		refused++
		if refused == 1 && made < 19 {
			t.Errorf("refused after %d", made)
		}
	}
	if refused < 50 {
		t.Errorf("%d of 100 refused", refused)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/api/v1/vms"} {
		if a := calm("GET", path, nil); a.status != http.StatusOK {
			t.Errorf("%s of another account: %d", path, a.status)
		}
	}
	var rows, records int
	if err := db.Owner.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM audit_log WHERE action = 'image.create')").Scan(&rows, &records); err != nil {
		t.Fatal(err)
	}
	if rows != made || records != made {
		t.Errorf("%d images and %d audit records for %d answers of success", rows, records, made)
	}
	if g := gauges(t, calm); g[`novacron_http_refused_total{limit="account_rate"}`] != float64(refused) {
		t.Errorf("%d refused, and the metrics say %v", refused, g)
	}
}

// Bad credentials get one answer; an address that shows too many is refused, with
// whatever it shows next and wherever it says it comes from, and goes on the record
// in a bounded way. Who was known stays so.
func TestWrongTokensFromOneAddress(t *testing.T) {
	db, dir := storetest.New(t), t.TempDir()
	r := startAs(t, db, dir, Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{AddressRate: 0.001}}) // six at once
	good, fresh, revoked := r.token("good"), r.token("fresh"), r.token("revoked")
	if status, b := r.raw("DELETE", "/api/v1/tokens/"+revoked.ID, nil); status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", status, b)
	}
	known := r.asker(good.Token)
	if a := known("GET", "/api/v1/vms", nil); a.status != http.StatusOK {
		t.Fatalf("a good token: %d", a.status)
	}
	var first api.Error
	for i, bad := range []string{"nvc_garbage", revoked.Token, "nvc_" + strings.Repeat("a", 43), revoked.Token, good.Token + "x", "nvc_x"} {
		a := r.asker(bad)("GET", "/api/v1/vms", nil)
		e := a.problem(t)
		e.RequestID = ""
		if i == 0 {
			first = e
		}
		if a.status != http.StatusUnauthorized || fmt.Sprint(e) != fmt.Sprint(first) {
			t.Errorf("%q: %d %+v, the first got %+v", bad, a.status, e, first)
		}
	}
	before := written(t, db)
	var refusal string
	for i, bad := range []string{"nvc_garbage", revoked.Token, fresh.Token, "", "whatever"} {
		a := r.asker(bad)("GET", "/api/v1/vms", nil, "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i), "Forwarded", "for=198.51.100.7", "X-Real-IP", "198.51.100.8")
		a.refused(t)
		if d := a.problem(t).Detail; refusal == "" {
			refusal = d
		} else if d != refusal {
			t.Errorf("%q: %q, another got %q", bad, d, refusal)
		}
	}
	r.asker("")("POST", "/api/v1/setup", api.Setup{SetupToken: "nvs_x", Name: "a"}).refused(t)
	if reply := join(r, "nvj_wrong"); reply.Error == nil || reply.Error.Code != "rate_limited" {
		t.Errorf("joining: %+v", reply.Error)
	}
	if after := written(t, db); after != before {
		t.Errorf("refused requests wrote: %s, then %s", before, after)
	}
	for range 20 {
		if a := known("GET", "/api/v1/vms", nil); a.status != http.StatusOK {
			t.Fatalf("a known token from that address: %d", a.status)
		}
	}
	if a := r.asker("")("GET", "/readyz", nil); a.status != http.StatusOK {
		t.Errorf("readiness: %d", a.status)
	}
	r.stop() // what was counted is written at the end
	var records, requests int
	if err := db.Owner.QueryRow(t.Context(), `SELECT count(*), sum(coalesce((detail->>'requests')::int, 1)) FROM audit_log
		WHERE outcome = 'denied' AND action = 'authenticate' AND principal = 'anonymous'`).Scan(&records, &requests); err != nil {
		t.Fatal(err)
	}
	if records != 2 || requests != 12 {
		t.Errorf("%d records of %d requests, want 2 of 12", records, requests)
	}
}

// join tries to join with a token.
func join(r *running, token string) nodelink.JoinReply {
	return joinAs(r, nodelink.JoinRequest{Token: token, Name: "n1"})
}

// joinAs asks to join as a host does.
func joinAs(r *running, req nodelink.JoinRequest) nodelink.JoinReply {
	r.t.Helper()
	conn, err := tls.Dial("tcp", r.info.Address, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{nodelink.ALPNJoin}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		r.t.Fatal(err)
	}
	var reply nodelink.JoinReply
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		r.t.Fatal(err)
	}
	return reply
}

// Streams and waits take no place at work, and one account has a bounded number of
// them; a request that would wait is refused before it changes anything.
func TestStreamsAreBounded(t *testing.T) {
	db := storetest.New(t)
	r := startAs(t, db, t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{Requests: 3, Streams: 12}})
	one, two := r.token("one").Token, r.token("two").Token
	ask, other := r.asker(one), r.asker(two)
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	open := func(token string) int {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.info.Address+"/api/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Accept", "text/event-stream")
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp.StatusCode
	}
	for i := range 8 {
		if status := open(one); status != http.StatusOK {
			t.Fatalf("stream %d: %d", i, status)
		}
	}
	if status := open(one); status != http.StatusTooManyRequests {
		t.Errorf("one stream too many: %d", status)
	}
	before := written(t, db)
	ask("POST", "/api/v1/vms?wait=1s", newVM("a")).refused(t)
	if after := written(t, db); after != before {
		t.Error("a refused request changed something")
	}
	if a := ask("GET", "/api/v1/vms", nil); a.status != http.StatusOK {
		t.Errorf("streams take places at work: %d %s", a.status, a.body)
	}
	if status := open(two); status != http.StatusOK {
		t.Errorf("another account's stream: %d", status)
	}
	if g := gauges(t, other); g["novacron_http_streams_open"] != 9 || g["novacron_http_requests_at_work"] != 0 {
		t.Errorf("%v", g)
	}
	hangUp()
	r.until("streams that ended are given back", 20*time.Second, func() bool { return gauges(t, other)["novacron_http_streams_open"] == 0 })
}

// An address is what others cannot choose: an IPv6 host has a /64 of them.
func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:443": "192.0.2.7/32", "[::ffff:192.0.2.7]:1": "192.0.2.7/32", "[2001:db8:1:2:3:4:5:6]:9": "2001:db8:1:2::/64",
		"[2001:db8:1:2::1]:8": "2001:db8:1:2::/64", "[2001:db8:1:3::1]:8": "2001:db8:1:3::/64", "[fe80::1%eth0]:5": "fe80::/64", "@": "invalid Prefix", "": "invalid Prefix",
	} {
		if got := addressOf(in).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// A million addresses that are refused leave a bounded record, in which each of
// their requests is counted.
func TestDenialsAreBounded(t *testing.T) {
	var records, requests int64
	d := &denials{clock: clock.NewFake(), write: func(_ context.Context, _ control.Caller, _, _ string, detail map[string]any) {
		records++
		if n, ok := detail["requests"].(int64); ok {
			requests += n
		} else {
			requests++
		}
	}}
	const addresses, times = 200_000, 5
	for i := range addresses {
		c := control.Caller{}
		c.Name, c.Role, c.Origin = "anonymous", "anonymous", fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff)
		for n := range times {
			if n%2 == 0 {
				d.note(t.Context(), c, actionAuthenticate, "/")
			} else {
				d.count(c, actionAuthenticate)
			}
		}
	}
	d.flush(t.Context())
	if records != 2*mostDenials+1 || requests != addresses*times {
		t.Errorf("%d records of %d requests", records, requests)
	}
	if d.flush(t.Context()); records != 2*mostDenials+1 || len(d.minute) != 0 {
		t.Errorf("%d records after nothing", records)
	}
}

// What a limit is set to is a number.
func TestLimitsAreNumbers(t *testing.T) {
	for _, l := range []Limits{{AccountRate: -1}, {AddressRate: 1e9}, {Requests: -1}, {Streams: -5}} {
		if l.check() == nil {
			t.Errorf("%+v is taken", l)
		}
	}
	if err := (Limits{}).check(); err != nil {
		t.Error(err)
	}
}
