package daemon

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Bounds of what nodes give each other.
const (
	// offerLife is how long an offer stands.
	offerLife = time.Minute
	// greetTime is how long a connection may take to say who it is.
	greetTime = 5 * time.Second
	// maxOffers is how many offers stand at a time: each is a port.
	maxOffers = 8
	// maxGreets is how many connections may try one offer.
	maxGreets = 16
	// stalled is how long a reader may take nothing.
	stalled = 30 * time.Second
)

// noPeers as an address turns the giving and taking off.
const noPeers = "off"

// neighbours gives image files, and VMs that move, to other nodes, and takes them. A port is open
// for as long as an offer stands, and lets in the one node it is for.
type neighbours struct {
	who *identity
	log *slog.Logger
	// fixed is the address to listen at, of this host; found out when empty
	fixed string

	mu sync.Mutex
	// found is the address of this host that a server is reached from
	found string
	open  int
	// servers are those that may relay, entrances where nodes come in, by their addresses,
	// and ways what is known of those to other nodes.
	servers   map[*server]bool
	entrances map[string]*entrance
	ways      map[string]way
}

var _ agent.Neighbours = (*neighbours)(nil)

// seen takes this side's address of a session with a server.
func (n *neighbours) seen(local net.Addr) {
	host, _, err := net.SplitHostPort(local.String())
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.found = host
}

// enter counts an offer, and gives the address to listen at.
func (n *neighbours) enter() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	host := n.fixed
	if host == "" {
		host = n.found
	}
	switch {
	case n.fixed == noPeers, host == "":
		return "", errs.New(errs.Unsupported, "this node gives nothing to other nodes")
	case n.open >= maxOffers:
		return "", errs.New(errs.Conflict, "this node gives to %d other nodes already", n.open)
	}
	n.open++
	return host, nil
}

func (n *neighbours) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open--
}

// Offer implements agent.Neighbours.
func (n *neighbours) Offer(to id.ID, ticket string, serve func(io.Writer) error) (string, error) {
	host, err := n.enter()
	if err != nil {
		return "", err
	}
	l, err := n.enterAt(host)
	if err != nil {
		n.leave()
		return "", err
	}
	life, over := context.WithTimeout(context.Background(), offerLife)
	context.AfterFunc(life, func() { _ = l.Close() })
	go func() {
		defer n.leave()
		defer over()
		for range maxGreets {
			conn, err := l.Accept()
			if err != nil {
				return // its time is over
			}
			if n.give(conn, to, ticket, l, serve) {
				return
			}
		}
	}()
	return l.Addr().String(), nil
}

// give serves a connection if it is the one the offer is for.
func (n *neighbours) give(conn net.Conn, to id.ID, ticket string, l net.Listener, serve func(io.Writer) error) bool {
	defer conn.Close()
	_ = conn.SetDeadline(clock.Deadline(greetTime))
	c := tls.Server(conn, n.config(to, true))
	defer c.Close()
	line, err := bufio.NewReaderSize(c, 128).ReadSlice('\n') // the handshake comes with it
	if err != nil || subtle.ConstantTimeCompare([]byte(strings.TrimSuffix(string(line), "\n")), []byte(ticket)) != 1 {
		n.log.Warn("another node's connection was refused", "peer", conn.RemoteAddr(), "err", err)
		return false
	}
	_ = l.Close() // once
	_ = conn.SetDeadline(time.Time{})
	if err := serve(&patient{c, n}); err != nil {
		n.log.Warn("another node did not get all that was offered to it", "node", to, "err", err)
		return true
	}
	_ = c.CloseWrite()
	return true
}

// patient gives up a reader that takes nothing.
type patient struct {
	*tls.Conn
	n *neighbours
}

// Write implements io.Writer.
func (p *patient) Write(b []byte) (int, error) {
	_ = p.SetWriteDeadline(clock.Deadline(stalled))
	return p.Conn.Write(b)
}

// Read implements agent.Neighbours.
func (n *neighbours) Read(ctx context.Context, s nodelink.ImageSource, to io.Writer) error {
	dial := func() (net.Conn, error) { return n.dial(ctx, s.Node, s.Address, s.Ticket) }
	if s.Direct {
		dial = func() (net.Conn, error) { return n.direct(ctx, s.Address) }
	}
	raw, err := dial()
	if err != nil {
		return err
	}
	return n.readFrom(ctx, raw, s, to)
}

// readFrom reads what another node offers over a connection, which it closes.
func (n *neighbours) readFrom(ctx context.Context, raw net.Conn, s nodelink.ImageSource, to io.Writer) error {
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn, err := n.greet(ctx, raw, s.Node)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, s.Ticket+"\n"); err != nil {
		return err
	}
	_, err = io.Copy(to, &lively{conn, n})
	return err
}

// greet proves over a connection who is at its ends, and closes it when that fails.
func (n *neighbours) greet(ctx context.Context, raw net.Conn, peer id.ID) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	c := tls.Client(raw, n.config(peer, false))
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, errs.New(errs.NodeUnreachable, "the other node does not say who it is").Because(err)
	}
	return c, nil
}

// lively gives up a giver that sends nothing.
type lively struct {
	net.Conn
	n *neighbours
}

// Read implements io.Reader.
func (l *lively) Read(b []byte) (int, error) {
	_ = l.SetReadDeadline(clock.Deadline(stalled))
	return l.Conn.Read(b)
}

// config is of either side: both show their node's certificate, and each takes
// the one node alone that the server named. The usual verification knows roles
// that a node's certificate does not have.
func (n *neighbours) config(peer id.ID, server bool) *tls.Config {
	cfg := n.who.tls(nodelink.ALPNPeer)
	cfg.InsecureSkipVerify = true // VerifyConnection stands in its place
	cfg.VerifyConnection = func(cs tls.ConnectionState) error { return n.verify(cs, peer) }
	if server {
		cfg.ClientAuth, cfg.SessionTicketsDisabled = tls.RequireAnyClientCert, true
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cfg.GetClientCertificate(nil) }
	}
	return cfg
}

func (n *neighbours) verify(cs tls.ConnectionState, peer id.ID) error {
	if len(cs.PeerCertificates) == 0 || cs.NegotiatedProtocol != nodelink.ALPNPeer {
		return errs.New(errs.Unauthenticated, "the other side is no node, or speaks of something else")
	}
	cert := cs.PeerCertificates[0]
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: pki.PoolOf(n.who.root), CurrentTime: n.who.clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return errs.New(errs.Unauthenticated, "the other side's certificate is not the cluster's").Because(err)
	}
	if node, _, err := pki.NodeOf(cert); err != nil || node != peer {
		return errs.New(errs.Unauthenticated, "the other side is another node than was named").Because(err)
	}
	return nil
}
