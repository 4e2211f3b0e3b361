package server

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/store/storetest"
)

// A session ends with the certificate that opened it and not before, and the agent
// opens another with the one it was given meanwhile. Its guests notice neither that,
// nor that the certificate expires while all servers are away, nor that it is renewed
// when they are back.
func TestGuestsOutliveCertificates(t *testing.T) {
	t.Parallel()
	db, clk := storetest.New(t), lapse{newWarp()}
	r := startOn(t, db, t.TempDir(), clk)
	k, _ := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
	ctx, cancel := context.WithCancel(context.Background())
	log, ended := &logged{}, make(chan struct{})
	go func() {
		defer close(ended)
		_ = daemon.RunSim(ctx, daemon.Options{
			DataDir: filepath.Join(r.dir, "sim"), Clock: clk, Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)), Ready: func() {},
		}, 1, []string{k.Token})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	r.until("the node joins", 20*time.Second, func() bool { return log.count("joined a server") == 1 })
	r.image("tiny")
	r.does("POST", "/api/v1/vms", newVM("web"))
	steady := r.hosts()
	state := func(r *running) (api.NodeStatus, api.VMStatus) {
		n, _ := call[api.Node](r, "GET", "/api/v1/nodes/sim-0001", nil)
		v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil)
		return n.Status, v.Status
	}
	untouched := func(when string, r *running) {
		t.Helper()
		r.until("all is well "+when, 30*time.Second, func() bool {
			n, v := state(r)
			return n.State == "ready" && v.State == "running"
		})
		if now := r.hosts(); !maps.Equal(now, steady) {
			t.Errorf("%s: the host had\n%v\nand has\n%v", when, steady, now)
		}
	}
	n, _ := state(r)
	first := *n.CertificateExpiresAt

	clk.jump(pki.NodeLife*2/3 + time.Hour)
	r.until("the certificate is renewed", 20*time.Second, func() bool { n, _ := state(r); return n.CertificateExpiresAt.After(first) })
	untouched("after the renewal", r)
	if got := log.count("joined a server"); got != 1 {
		t.Errorf("the session did not stand through the renewal: %d were opened", got)
	}
	clk.jump(pki.NodeLife / 3)
	r.until("another session is opened when the first certificate has expired", 20*time.Second, func() bool { return log.count("joined a server") == 2 })
	untouched("with the second session", r)

	r.stop()
	clk.jump(2 * pki.NodeLife)
	r.until("the agent says what is wrong", 20*time.Second, func() bool {
		return log.count("has expired and cannot be renewed yet; its guests run on") > 0
	})
	if now := r.hosts(); !maps.Equal(now, steady) {
		t.Errorf("without servers: the host had\n%v\nand has\n%v", steady, now)
	}
	cancel()
	<-ended
	again := startAt(t, db, r.dir, clk, r.info.Address)
	if late := value(again.scrape("/metrics"), "novacron_nodes_certificate_late"); late != 1 {
		t.Errorf("nobody is told that a certificate is not renewed: %v", late)
	}
	again.runNodes(1, nil) // returns once a server has welcomed it
	untouched("when the servers are back", again)
	again.until("the certificate is not late any more", 20*time.Second, func() bool {
		clk.jump(countEvery) // figures are counted again
		return value(again.scrape("/metrics"), "novacron_nodes_certificate_late") == 0
	})
}
