package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// lapse is a machine's clock whose boot clock jumps with the wall: time goes by
// while a test does nothing.
type lapse struct{ *warp }

// Boot implements clock.Clock.
func (l lapse) Boot() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.System.Boot() + l.ahead
}

// hosts reads what the simulated hosts run and what their agents have on record.
func (r *running) hosts() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"guests/*.jsonl", "records/*.json"} {
		files, err := filepath.Glob(filepath.Join(r.dir, "sim", "*", pattern))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				r.t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				var of struct{ VM string }
				if err := json.Unmarshal([]byte(line), &of); err != nil {
					r.t.Fatal(err)
				}
				out[strings.TrimPrefix(f, r.dir)+" "+of.VM] = line // the last one counts
			}
		}
	}
	return out
}

// All servers are gone for an hour: no VM is stopped, started or deleted because of
// that, and when they are back, nothing is done to any of them either.
func TestAllServersGoneForAnHour(t *testing.T) {
	db, dir, clk := storetest.New(t), t.TempDir(), lapse{newWarp()}
	first := startOn(t, db, dir, clk)
	var tokens []string
	for range 3 {
		k, _ := call[api.NodeToken](first, "POST", "/api/v1/node-tokens", nil)
		tokens = append(tokens, k.Token)
	}
	first.runNodes(3, tokens)
	first.image("tiny")
	for n := range 9 {
		v := newVM(fmt.Sprintf("vm-%d", n))
		v.Start = n%3 != 0
		first.does("POST", "/api/v1/vms", v)
	}
	seen := func(r *running) map[string]string {
		vms, status := call[api.List[api.VM]](r, "GET", "/api/v1/vms?limit=100", nil)
		if status != http.StatusOK {
			t.Fatalf("list: %d", status)
		}
		out := map[string]string{}
		for _, v := range vms.Items {
			out[v.Name] = fmt.Sprint(v.Status.State, v.Status.Node, v.Status.OwnerEpoch, v.Spec.Power, v.Status.Job)
		}
		return out
	}
	changes := func() (jobs, audits int) {
		err := db.App.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM audit_log)").Scan(&jobs, &audits)
		if err != nil {
			t.Fatal(err)
		}
		return jobs, audits
	}
	hosts, vms := first.hosts(), seen(first)
	running := 0
	for _, h := range hosts {
		if strings.Contains(h, `"phase":"running"`) {
			running++
		}
	}
	if running != 6 || len(vms) != 9 {
		t.Fatalf("%d run of %d", running, len(vms))
	}
	jobs, audits := changes()
	first.stop()

	clk.jump(time.Hour)
	if now := first.hosts(); !maps.Equal(now, hosts) {
		t.Errorf("hosts changed while nobody was there:\n%v\nbefore:\n%v", now, hosts)
	}

	second := startAt(t, db, dir, clk, first.info.Address)
	second.until("every node reports", 30*time.Second, func() bool {
		nodes, _ := call[api.List[api.Node]](second, "GET", "/api/v1/nodes", nil)
		ready := 0
		for _, n := range nodes.Items {
			if n.Status.State == "ready" {
				ready++
			}
		}
		return ready == 3
	})
	second.until("every VM is as it was", 10*time.Second, func() bool { return maps.Equal(seen(second), vms) })
	// longer than a lease: whoever would decide anything has decided it
	clk.jump(time.Minute)
	second.until("the nodes report after a lease's time", 30*time.Second, func() bool { return maps.Equal(seen(second), vms) })
	if now := second.hosts(); !maps.Equal(now, hosts) {
		t.Errorf("hosts changed after the return:\n%v\nbefore:\n%v", now, hosts)
	}
	// the setup token of a start is all that happened
	if j, a := changes(); j != jobs || a > audits+1 {
		t.Errorf("%d jobs and %d audit records, before %d and %d", j, a, jobs, audits)
	}
	second.does("POST", "/api/v1/vms/vm-1/stop", nil)
}
