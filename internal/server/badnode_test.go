package server

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// nodeCase is one line of node.jsonl: what a node with a good certificate calls, and
// what becomes of it.
type nodeCase struct {
	Name string `json:"name"`
	// Hello: does it say a proper hello first?
	Hello bool `json:"hello"`
	// Holdings is what it answers when it is asked what it holds.
	Holdings string     `json:"holdings"`
	Calls    []nodeCall `json:"calls"`
	// Hold is why it is held in the end: ahead, misbehaved, or not at all.
	Hold string `json:"hold"`
}

// nodeCall is a call up. In its body {{self}} stands for the node, {{victim}} for an
// honest one, {{own}} for a VM placed on the node, {{other}} for one on the honest
// node, {{none}} for no VM.
type nodeCall struct {
	Method string `json:"method"`
	Body   string `json:"body"`
	// Times it is made at once; 1 if 0.
	Times int `json:"times"`
	// Code it is refused with; empty for a call that is answered, "ends" for a session
	// that ends meanwhile.
	Code string `json:"code"`
	// Results are what became of its reports.
	Results []nodelink.Result `json:"results"`
}

// rogue is a node whose agent is in other hands.
type rogue struct {
	t    *testing.T
	r    *running
	id   id.ID
	cert tls.Certificate
	// holdings it tells of
	holdings json.RawMessage
	// admits, unless nil, is told of the relays that it is to open its side of.
	admits chan nodelink.AdmitRelay
}

// newRogue joins as a host does.
func newRogue(t *testing.T, r *running, name string) *rogue {
	t.Helper()
	k, status := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
	if status != http.StatusCreated {
		t.Fatalf("no join token: %d", status)
	}
	token, err := pki.ParseJoinToken(k.Token)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	reply := joinAs(r, nodelink.JoinRequest{Token: token.Secret, Name: name, CSRPEM: string(csr)})
	if reply.Error != nil {
		t.Fatalf("join: %+v", reply.Error)
	}
	leaf, err := pki.ParseCert([]byte(reply.CertPEM))
	if err != nil {
		t.Fatal(err)
	}
	return &rogue{t: t, r: r, id: reply.Node, cert: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: crypto.PrivateKey(key), Leaf: leaf}}
}

// session dials and gives the way up, until the test ends.
func (g *rogue) session() (up *nodelink.Uplink, end func()) {
	g.t.Helper()
	conn, err := tls.Dial("tcp", g.r.info.Address, &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{nodelink.ALPNNode}, Certificates: []tls.Certificate{g.cert},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ups, ended := make(chan *nodelink.Uplink, 1), make(chan struct{})
	go func() {
		defer close(ended)
		_ = nodelink.ServeConn(ctx, conn, func(_ context.Context, method string, body []byte) (any, error) {
			if method == (&nodelink.AdmitRelay{}).Method() && g.admits != nil {
				var c nodelink.AdmitRelay
				err := json.Unmarshal(body, &c)
				g.admits <- c
				return nodelink.Done{}, err
			}
			if method == (&nodelink.ListHoldings{}).Method() && len(g.holdings) > 0 {
				return g.holdings, nil
			}
			return nil, errs.New(errs.Unsupported, "no")
		}, func(ctx context.Context, u *nodelink.Uplink) {
			ups <- u
			<-ctx.Done()
		})
	}()
	end = func() { cancel(); <-ended }
	g.t.Cleanup(end)
	select {
	case up = <-ups:
	case <-ended:
		g.t.Fatal("there is no session")
	}
	return up, end
}

func (g *rogue) hello(up *nodelink.Uplink, epoch int) error {
	body := fmt.Sprintf(`{"node":"%s","node_epoch":%d,"agent_version":"x","protocol":1,"inventory":{"cpus":4,"memory_bytes":8589934592,"storage_bytes":1099511627776}}`, g.id, epoch)
	return up.Call(g.t.Context(), nodelink.MethodHello, json.RawMessage(body), nil)
}

// held tells why it is held.
func (g *rogue) held(db *storetest.DB) string {
	g.t.Helper()
	var cause string
	err := db.Owner.QueryRow(g.t.Context(), "SELECT cause FROM recovery_nodes WHERE node_id = $1", g.id).Scan(&cause)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		g.t.Fatal(err)
	}
	return cause
}

// do makes a call as often as it says.
func (g *rogue) do(up *nodelink.Uplink, c nodeCall, body string) {
	g.t.Helper()
	done := make(chan error, max(c.Times, 1))
	var reply nodelink.ReportsReply
	for i := range max(c.Times, 1) {
		go func() {
			into := &reply
			if i > 0 {
				into = &nodelink.ReportsReply{}
			}
			done <- up.Call(g.t.Context(), c.Method, json.RawMessage(body), into)
		}()
	}
	refused := 0
	for range max(c.Times, 1) {
		err := <-done
		switch {
		case err == nil && c.Code == "":
		case c.Code == "ends" && errs.Is(err, errs.NodeUnreachable), c.Code != "" && errs.Is(err, errs.Code(c.Code)):
			refused++
		case c.Times > 1: // of many, some come through before, and some find no session
		default:
			g.t.Errorf("%s: %v, want %q", c.Method, err, c.Code)
		}
	}
	if c.Code != "" && refused == 0 {
		g.t.Errorf("%s: none was refused with %s", c.Method, c.Code)
	}
	if len(c.Results) > 0 && !slices.Equal(reply.Results, c.Results) {
		g.t.Errorf("%s: results %v, want %v", c.Method, reply.Results, c.Results)
	}
}

// A node that lies is believed about nothing but what is placed on it; one that does
// what no agent does is not spoken with any more. Others, and their VMs, never
// notice.
func TestBadNodes(t *testing.T) {
	db := storetest.New(t)
	r := startAs(t, db, t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{NodeRate: 50}})
	r.nodes(1)
	r.image("tiny")
	if a, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", newVM("other")); status != http.StatusAccepted || a.Job.State != "succeeded" {
		t.Fatalf("create: %d %+v", status, a)
	}
	other, _ := call[api.VM](r, "GET", "/api/v1/vms/other", nil)
	var victim, project string
	if err := db.Owner.QueryRow(t.Context(), "SELECT node_id::text, project_id::text FROM vms").Scan(&victim, &project); err != nil {
		t.Fatal(err)
	}
	ignored := []string{"node.quarantine", "recovery.hold", "node.updated", "recovery.updated"}
	for i, c := range lineByLine[nodeCase](t, filepath.Join(corpus, "node.jsonl")) {
		t.Run(c.Name, func(t *testing.T) {
			g := newRogue(t, r, fmt.Sprintf("rogue-%d", i))
			own := id.New()
			if _, err := db.Owner.Exec(t.Context(), `INSERT INTO vms (id, project_id, name, cpus, memory_bytes, power, node_id, owner_epoch, op_seq)
				VALUES ($1, $2, $3, 1, 134217728, 'off', $4, 5, 7)`, own, project, fmt.Sprintf("own-%d", i), g.id); err != nil {
				t.Fatal(err)
			}
			fill := func(s string) string {
				return strings.NewReplacer("{{self}}", g.id.String(), "{{victim}}", victim, "{{own}}", own.String(), "{{other}}", other.ID, "{{none}}", id.New().String()).Replace(s)
			}
			g.holdings = json.RawMessage(fill(c.Holdings))
			up, end := g.session()
			defer end()
			before, truth := written(t, db, ignored...), instances(t, db, other.ID)
			if c.Hello {
				if err := g.hello(up, 1); err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range c.Calls {
				g.do(up, k, expand(fill(k.Body)))
			}
			r.until("it is held as it should be: "+c.Hold, 20*time.Second, func() bool { return g.held(db) == c.Hold })
			if diff := cmp.Diff(before, written(t, db, ignored...)); diff != "" {
				t.Errorf("rows before and after:\n%s", diff)
			}
			if now := instances(t, db, other.ID); now != truth {
				t.Errorf("the other node's VM is %s, before %s", now, truth)
			}
			n, _ := call[api.Node](r, "GET", "/api/v1/nodes/"+g.id.String(), nil)
			if (n.Status.State == "quarantined") != (c.Hold == "misbehaved") {
				t.Errorf("the node is shown as %s: %s", n.Status.State, n.Status.Reason)
			}
			if c.Hold == "misbehaved" {
				again, end := g.session()
				if err := g.hello(again, 2); !errs.Is(err, errs.NodeQuarantined) {
					t.Errorf("a node in quarantine says hello: %v", err)
				}
				end()
			}
			end()
			// many nodes that are ahead would hold the cluster
			if _, err := db.Owner.Exec(t.Context(), "DELETE FROM recovery_nodes"); err != nil {
				t.Fatal(err)
			}
		})
	}
	if v, _ := call[api.VM](r, "GET", "/api/v1/vms/other", nil); v.Status.State != "running" {
		t.Errorf("the honest node's VM is %s", v.Status.State)
	}
}

// instances is what is known of a VM and of its observation.
func instances(t *testing.T, db *storetest.DB, v string) (out string) {
	t.Helper()
	err := db.Owner.QueryRow(t.Context(), "SELECT v::text || coalesce(string_agg(i::text, ','), '') FROM vms v LEFT JOIN instances i ON i.vm_id = v.id WHERE v.id = $1 GROUP BY v.*", v).Scan(&out)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A node in quarantine is alarmed about, nothing is done on it, and what it says does
// not count, until an operator releases it; then it comes back as it was.
func TestQuarantine(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.image("tiny")
	g := newRogue(t, r, "rogue")
	up, end := g.session()
	if err := g.hello(up, 1); err != nil {
		t.Fatal(err)
	}
	ask := r.asker(r.token("ops").Token)
	if code := r.code("POST", "/api/v1/nodes/rogue/release", nil); code != "invalid_state" {
		t.Errorf("a node that is in no quarantine is released: %s", code)
	}
	g.do(up, nodeCall{Method: nodelink.MethodHello, Code: "node_quarantined"}, fmt.Sprintf(`{"node":"%s","node_epoch":9}`, id.New()))
	end()
	n, _ := call[api.Node](r, "GET", "/api/v1/nodes/rogue", nil)
	if n.Status.State != "quarantined" || !strings.Contains(n.Status.Reason, "called itself") {
		t.Errorf("%+v", n.Status)
	}
	if a := ask("GET", "/metrics", nil); !strings.Contains(string(a.body), "\nnovacron_quarantined_nodes 1\n") {
		t.Error("the metrics do not alarm")
	}
	if _, status := call[api.Accepted](r, "POST", "/api/v1/vms", on("rogue", "a")); status != http.StatusAccepted {
		t.Errorf("a VM that has to wait: %d", status)
	}
	r.until("it waits, and says why", 20*time.Second, func() bool {
		v, _ := call[api.VM](r, "GET", "/api/v1/vms/a", nil)
		return v.Status.State == "pending" && v.Status.Node == "" && len(v.Status.Placement) > 0
	})
	if code := r.code("DELETE", "/api/v1/images/none-such", nil); code != "not_found" {
		t.Errorf("images are held, too: %s", code)
	}
	if rec := r.recovery(); rec.Cause != "" || len(rec.Nodes) != 1 {
		t.Errorf("the cluster: %+v", rec)
	}
	if released, status := call[api.Node](r, "POST", "/api/v1/nodes/rogue/release", nil); status != http.StatusOK || released.Status.State == "quarantined" {
		t.Errorf("release: %d %+v", status, released.Status)
	}
	up, end = g.session()
	defer end()
	if err := g.hello(up, 2); err != nil {
		t.Errorf("after the release: %v", err)
	}
	var records []string
	r.until("both are in the audit log", 20*time.Second, func() bool {
		l, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit?object=rogue", nil)
		records = nil
		for _, a := range l.Items {
			records = append(records, a.Action+" "+a.Outcome)
		}
		return slices.Contains(records, "node.quarantine denied") && slices.Contains(records, "node.release accepted")
	})
}
