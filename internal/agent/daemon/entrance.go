package daemon

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// onlyRelayed as an address has other nodes come and be reached by way of servers alone.
const onlyRelayed = "relay"

// byRelay begins the address of an entrance that has no port.
const byRelay = "relay:"

// entrance is where another node's connections come in: a port, and what servers relay. It
// has an address by which the other node names it, wherever it comes from.
type entrance struct {
	address string
	// port is nil where there is none.
	port  net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	shut  func()
}

// enterAt opens an entrance of this node, at a port of host unless it takes what is relayed
// alone.
func (n *neighbours) enterAt(host string) (*entrance, error) {
	e := &entrance{address: byRelay + rand.Text(), conns: make(chan net.Conn), done: make(chan struct{})}
	if host != onlyRelayed {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, errs.New(errs.HostFailure, "the node cannot listen at %s for another node", host).Because(err)
		}
		e.port, e.address = l, l.Addr().String()
		go e.pump()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.entrances == nil {
		n.entrances = map[string]*entrance{}
	}
	n.entrances[e.address] = e
	e.shut = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.entrances, e.address)
	}
	return e, nil
}

// pump brings in what comes to the port.
func (e *entrance) pump() {
	for {
		c, err := e.port.Accept()
		if err != nil {
			select {
			case <-e.done:
				return
			default: // no more files, say: those who wait are let in later
				_ = clock.System{}.Sleep(context.Background(), time.Second)
				continue
			}
		}
		if !e.take(context.Background(), c) {
			return
		}
	}
}

// take brings a connection in, which is closed if nobody takes it any more.
func (e *entrance) take(ctx context.Context, c net.Conn) bool {
	select {
	case e.conns <- c:
		return true
	case <-e.done:
	case <-ctx.Done():
	}
	_ = c.Close()
	return false
}

// Accept implements net.Listener.
func (e *entrance) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. What has come in stays.
func (e *entrance) Close() error {
	e.once.Do(func() {
		close(e.done)
		if e.port != nil {
			_ = e.port.Close()
		}
		e.shut()
	})
	return nil
}

// Addr implements net.Listener.
func (e *entrance) Addr() net.Addr { return entranceAddr(e.address) }

type entranceAddr string

// Network implements net.Addr.
func (entranceAddr) Network() string { return "node" }

// String implements net.Addr.
func (a entranceAddr) String() string { return string(a) }

// Admit implements agent.Neighbours.
func (n *neighbours) Admit(ctx context.Context, p agent.Peer, address, ticket string) error {
	n.mu.Lock()
	e := n.entrances[address]
	n.mu.Unlock()
	if e == nil {
		return errs.New(errs.NotFound, "this node lets nobody in there any more")
	}
	s, err := p.Bulk(ctx, ticket)
	if err != nil {
		return err
	}
	c, ok := s.(net.Conn)
	if !ok {
		_ = s.Close()
		return errs.New(errs.Internal, "a bulk connection is not one of the network")
	}
	if !e.take(ctx, c) {
		return errs.New(errs.NotFound, "this node lets nobody in there any more")
	}
	return nil
}

// portless tells whether there is nothing to dial at an address.
func portless(address string) bool { return strings.HasPrefix(address, byRelay) }
