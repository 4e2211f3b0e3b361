package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// newNeighbour is a node with a certificate of the cluster's.
func newNeighbour(t *testing.T, ca *pki.Authority) *neighbours {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	node := id.New()
	certPEM, _, err := ca.Node(node, csr, (clock.System{}).Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCert(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	who := &identity{state: state{Node: node}, root: ca.Cert, key: key, cert: cert, clock: clock.System{}}
	return &neighbours{who: who, log: slog.New(slog.DiscardHandler), found: "127.0.0.1"}
}

func newAuthority(t *testing.T) *pki.Authority {
	t.Helper()
	ca, err := pki.NewAuthority(id.New(), (clock.System{}).Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// offer has a node offer a content to another.
func offer(t *testing.T, from, to *neighbours, content []byte) nodelink.ImageSource {
	t.Helper()
	s := nodelink.ImageSource{Node: from.who.state.Node, Ticket: "ticket-of-this-test"}
	var err error
	s.Address, err = from.Offer(to.who.state.Node, s.Ticket, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, n *neighbours, s nodelink.ImageSource) ([]byte, error) {
	t.Helper()
	var got bytes.Buffer
	err := n.Read(t.Context(), s, &got)
	return got.Bytes(), err
}

// A node reads once what another offers to it.
func TestNeighboursGive(t *testing.T) {
	ca := newAuthority(t)
	a, b := newNeighbour(t, ca), newNeighbour(t, ca)
	content := bytes.Repeat([]byte("image"), 1<<20)
	s := offer(t, a, b, content)
	got, err := read(t, b, s)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if got, err := read(t, b, s); err == nil || len(got) > 0 {
		t.Errorf("read twice: %d bytes, %v", len(got), err)
	}
}

// Nobody else gets a byte: no other node of the cluster, no node of another
// cluster, nobody without the ticket, without a certificate or with other words;
// and the one it is for gets it all the same. Nor does a node take anything from
// another than was named.
func TestNeighboursRefuseOthers(t *testing.T) {
	ca := newAuthority(t)
	a, b := newNeighbour(t, ca), newNeighbour(t, ca)
	s := offer(t, a, b, []byte("secret"))
	if got, err := read(t, newNeighbour(t, ca), s); len(got) > 0 {
		t.Errorf("another node read %q, %v", got, err)
	}
	if got, err := read(t, newNeighbour(t, newAuthority(t)), s); err == nil {
		t.Errorf("another cluster's node read %q", got)
	}
	wrong := s
	wrong.Ticket = "another-ticket"
	if got, err := read(t, b, wrong); len(got) > 0 {
		t.Errorf("without the ticket: %q %v", got, err)
	}
	wrong = s
	wrong.Node = id.New()
	if got, err := read(t, b, wrong); err == nil {
		t.Errorf("taken from another node than was named: %q", got)
	}
	for name, cfg := range map[string]*tls.Config{
		"NoCertificate": {MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{nodelink.ALPNPeer}},
		"OtherProtocol": b.who.tls(nodelink.ALPNBulk),
	} {
		cfg.InsecureSkipVerify = true
		c, err := tls.Dial("tcp", s.Address, cfg)
		if err != nil {
			continue // refused at once
		}
		_, _ = io.WriteString(c, s.Ticket+"\n")
		if got, err := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%s: %q %v", name, got, err)
		}
		_ = c.Close()
	}
	if got, err := read(t, b, s); err != nil || string(got) != "secret" {
		t.Errorf("the one it is for: %q %v", got, err)
	}
}

// Offers are few, and end; each gives its port back.
func TestNeighboursOffersAreBounded(t *testing.T) {
	ca := newAuthority(t)
	a, b := newNeighbour(t, ca), newNeighbour(t, ca)
	var all []nodelink.ImageSource
	for range maxOffers {
		all = append(all, offer(t, a, b, []byte("x")))
	}
	if _, err := a.Offer(b.who.state.Node, "t", nil); !errs.Is(err, errs.Conflict) {
		t.Errorf("one too many: %v", err)
	}
	for _, s := range all {
		if got, err := read(t, b, s); err != nil || string(got) != "x" {
			t.Errorf("%q %v", got, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		a.mu.Lock()
		open := a.open
		a.mu.Unlock()
		if open == 0 {
			break
		}
		if (clock.System{}).Sleep(ctx, time.Millisecond) != nil {
			t.Fatalf("%d offers are left", open)
		}
	}
	a.fixed = noPeers
	if _, err := a.Offer(b.who.state.Node, "t", nil); !errs.Is(err, errs.Unsupported) {
		t.Errorf("turned off: %v", err)
	}
	if err := a.Read(t.Context(), all[0], io.Discard); !errs.Is(err, errs.Unsupported) {
		t.Errorf("turned off: %v", err)
	}
}

// A giver that breaks off, and one that is gone, are failures of the transfer.
func TestNeighbourBreaksOff(t *testing.T) {
	ca := newAuthority(t)
	a, b := newNeighbour(t, ca), newNeighbour(t, ca)
	s := nodelink.ImageSource{Node: a.who.state.Node, Ticket: "t"}
	var err error
	s.Address, err = a.Offer(b.who.state.Node, s.Ticket, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return errors.New("the disk is gone")
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, b, s); string(got) != "half" {
		t.Errorf("%q %v", got, err) // the cache misses what is missing
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Address = l.Addr().String()
	_ = l.Close()
	if _, err := read(t, b, s); !errs.Is(err, errs.NodeUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
}
