package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
)

// apartNodes has no two nodes of the bench hear each other, for good.
func (b *bench) apartNodes() {
	for _, n := range b.nodes {
		var others []string
		for _, o := range b.nodes {
			if o != n {
				others = append(others, b.net.address(o.n))
			}
		}
		b.net.cut(n.n, others...)
	}
}

// figure reads one of a server's metrics.
func (s *server) figure(ctx context.Context, name string) (float64, error) {
	web := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.socket())
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	line := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(body)
	if line == nil {
		return 0, fmt.Errorf("%s tells nothing of %s", s.name, name)
	}
	return strconv.ParseFloat(string(line[1]), 64)
}

// killRelay kills the server that relays more than the other.
func killRelay(r *attempt) (func() error, error) {
	var relays *server
	most := 0.0
	for _, s := range r.b.servers {
		n, err := s.figure(r.ctx, "novacron_relays_open")
		if err != nil {
			return nil, err
		}
		if n > most {
			most, relays = n, s
		}
	}
	if relays == nil {
		return nil, fmt.Errorf("no server relays anything")
	}
	relays.end(syscall.SIGKILL)
	return relays.start, nil
}

// Nodes that do not reach each other move a guest by way of the servers; the plan says so
// before, and the record afterwards. When the server that relays is killed, the guest goes on.
func TestRelayedMigrations(t *testing.T) {
	apart(t)
	b := openBench(t, "")
	ctx := t.Context()
	plan := func() api.MigrationPlan {
		t.Helper()
		p, err := b.client.VMs.PlanMigration(ctx, vmName, api.VMMigrate{Node: b.nodes[1].Name})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := plan(); p.Reach != "direct" {
		t.Errorf("between nodes that reach each other the plan says %q: %q", p.Reach, p.Notes)
	}
	b.apartNodes()
	if p := plan(); p.Reach != "relayed" || !strings.Contains(strings.Join(p.Notes, " "), "slower") {
		t.Errorf("between nodes that do not reach each other the plan says %q: %q", p.Reach, p.Notes)
	}
	change, err := b.client.VMs.Migrate(ctx, vmName, api.VMMigrate{Node: b.nodes[1].Name})
	var job api.Job
	if err == nil {
		job, err = b.client.WaitChange(ctx, change, nil)
	}
	if err != nil || job.State != "succeeded" {
		t.Fatalf("a relayed migration: %v %+v", err, job)
	}
	m, err := b.client.Migrations.Get(ctx, job.ID)
	if err != nil || !m.Relayed || m.BytesMoved < 32<<20 {
		t.Errorf("its record: relayed %v, %d bytes, %v", m.Relayed, m.BytesMoved, err)
	}
	var carried float64
	for _, s := range b.servers {
		n, err := s.figure(ctx, "novacron_relayed_bytes_total")
		if err != nil {
			t.Error(err)
		}
		carried += n
	}
	if carried < 32<<20 {
		t.Errorf("servers say that they carried %.0f bytes", carried)
	}
	t.Logf("%d bytes moved, %.0f carried by servers, in %v; halted for %d ms", m.BytesMoved, carried, m.FinishedAt.Sub(*m.BegunAt), m.DowntimeMS)
	kill := fault{name: "kill-relay", do: killRelay, hold: short, fatal: endsNever}
	for k, at := range []point{atMemory, atSwitchover} {
		if err := b.try(ctx, at, kill, k); err != nil {
			t.Fatalf("%s/%s: %v", at, kill.name, err)
		}
	}
	// and they move again, with nothing to hinder them
	if err := b.try(ctx, atMemory, faults[0], 0); err != nil {
		t.Fatal(err)
	}
}
