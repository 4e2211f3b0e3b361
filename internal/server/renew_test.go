package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// warp is the machine's clock, but for a wall that a test moves on; whoever
// waits long looks at it then.
type warp struct {
	clock.System

	mu     sync.Mutex
	ahead  time.Duration
	jumped chan struct{}
}

func newWarp() *warp { return &warp{jumped: make(chan struct{})} }

// Now implements clock.Clock.
func (w *warp) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.System.Now().Add(w.ahead)
}

// After implements clock.Clock.
func (w *warp) After(d time.Duration) (<-chan time.Time, func()) {
	if d < time.Minute {
		return w.System.After(d)
	}
	w.mu.Lock()
	jumped := w.jumped
	w.mu.Unlock()
	out, stop := make(chan time.Time, 1), make(chan struct{})
	go func() {
		select {
		case <-jumped:
			out <- w.Now()
		case <-stop:
		}
	}()
	return out, sync.OnceFunc(func() { close(stop) })
}

// Sleep implements clock.Clock.
func (w *warp) Sleep(ctx context.Context, d time.Duration) error {
	ch, stop := w.After(d)
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ch:
		return nil
	}
}

func (w *warp) jump(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
	close(w.jumped)
	w.jumped = make(chan struct{})
}

// A node's certificate is renewed at two thirds of its life, with its sessions
// standing; one that expired while the node was away is renewed when it returns.
// A removed node's is not.
func TestNodeCertificatesAreRenewed(t *testing.T) {
	w := newWarp()
	r := startOn(t, storetest.New(t), t.TempDir(), w)
	k, _ := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
	stop := r.runNodes(1, []string{k.Token})
	ends := func() time.Time {
		n, status := call[api.Node](r, "GET", "/api/v1/nodes/sim-0001", nil)
		if status != http.StatusOK || n.Status.CertificateExpiresAt == nil {
			t.Fatalf("%d %+v", status, n.Status)
		}
		return *n.Status.CertificateExpiresAt
	}
	first := ends()
	if left := first.Sub(w.Now()); left > pki.NodeLife || left < pki.NodeLife-time.Hour {
		t.Errorf("the first certificate lasts %s", left)
	}

	w.jump(pki.NodeLife / 2)
	if got := ends(); !got.Equal(first) {
		t.Errorf("renewed at half of its life: %s, was %s", got, first)
	}
	w.jump(pki.NodeLife / 6)
	r.until("the certificate is renewed at two thirds of its life", 10*time.Second, func() bool {
		return ends().After(first)
	})

	stop()
	second := ends()
	w.jump(2 * pki.NodeLife)
	r.refuses(w, nodelink.ALPNNode, "expired")
	r.refuses(w, nodelink.ALPNBulk, "expired")
	stop = r.runNodes(1, nil) // returns once a server has welcomed it
	if !ends().After(second.Add(pki.NodeLife)) {
		t.Errorf("after it expired: %s, was %s", ends(), second)
	}
	r.until("both renewals are on record", 10*time.Second, func() bool {
		a, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit?limit=100", nil)
		return renewals(a.Items) == 2
	})

	stop()
	if status, body := r.raw("DELETE", "/api/v1/nodes/sim-0001", nil); status >= 300 {
		t.Fatalf("%d %s", status, body)
	}
	if answer := r.renew(w, r.identity()); !strings.Contains(answer, "removed") || strings.Contains(answer, "BEGIN") {
		t.Errorf("a removed node asks: %s", answer)
	}
}

func renewals(records []api.AuditRecord) (n int) {
	for _, a := range records {
		if a.Action == "node.renew_certificate" {
			n++
		}
	}
	return n
}

// Only certificates of this cluster are renewed.
func TestForeignCertificatesAreNotRenewed(t *testing.T) {
	w := newWarp()
	r := startOn(t, storetest.New(t), t.TempDir(), w)
	r.nodes(1)
	own := r.identity()
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	node, _, err := pki.NodeOf(leaf)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewAuthority(node, w.Now())
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
	certPEM, _, err := other.Node(node, csr, w.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCert(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	foreign := tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	if answer := r.renew(w, foreign); !strings.Contains(answer, "not made by this cluster") {
		t.Errorf("a foreign certificate: %s", answer)
	}
	// the node's certificate without its key
	stolen := tls.Certificate{Certificate: own.Certificate, PrivateKey: key}
	if answer := r.renew(w, stolen); strings.Contains(answer, "BEGIN") {
		t.Errorf("a certificate without its key: %s", answer)
	}
	if answer := r.renew(w, own); !strings.Contains(answer, "BEGIN CERTIFICATE") {
		t.Errorf("the node itself: %s", answer)
	}
}

// identity is what the first simulated node shows.
func (r *running) identity() tls.Certificate {
	r.t.Helper()
	dir := filepath.Join(r.dir, "sim", "sim-0001")
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *running) dialAs(w *warp, alpn string, who tls.Certificate) (*tls.Conn, error) {
	r.t.Helper()
	ca, err := os.ReadFile(filepath.Join(r.dir, "sim", "sim-0001", "ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: pki.ServerName, NextProtos: []string{alpn}, Time: w.Now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &who, nil },
	}}
	c, err := d.DialContext(r.t.Context(), "tcp", r.info.Address)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// renew asks for a new certificate and gives the answer, or why there is none.
func (r *running) renew(w *warp, who tls.Certificate) string {
	r.t.Helper()
	c, err := r.dialAs(w, nodelink.ALPNRenew, who)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// refuses expects the server to refuse the first node's certificate. In TLS 1.3
// the client learns of it with its first read.
func (r *running) refuses(w *warp, alpn, why string) {
	r.t.Helper()
	c, err := r.dialAs(w, alpn, r.identity())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), why) {
		r.t.Errorf("%s with an expired certificate: %v", alpn, err)
	}
}
