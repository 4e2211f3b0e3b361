package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Back-off between tries at a server: doubled from the first to the last, with
// full jitter, so that a thousand agents do not come back in step.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 2 * time.Second
	dialTimeout  = 5 * time.Second
	// removedWait is for a node that was removed: only a mistake that is put right
	// by other means could make it welcome again.
	removedWait = time.Minute
)

// links keeps a session with every server the node knows.
type links struct {
	agent   *agent.Agent
	who     *identity
	peers   *neighbours
	clock   clock.Clock
	log     *slog.Logger
	version string
	// discover says whether to look for servers nearby
	discover bool
	// alive counts the sessions that were welcomed
	alive atomic.Int32

	mu sync.Mutex
	// kept are the servers with a loop of their own; listed is what a server last
	// said there are, empty before any did
	kept   map[string]bool
	listed []string
	wg     sync.WaitGroup
	// up is closed when the first session was welcomed.
	up     chan struct{}
	upOnce sync.Once
	// refused tells of a certificate of the node's that a server holds for expired
	refused chan *x509.Certificate
	// told that the node was removed
	removedOnce sync.Once
}

// removed tells, once, what to do with a node that is out of the cluster. Its
// guests are left alone: they may be all that is left of somebody's work.
func (l *links) removed() {
	l.removedOnce.Do(func() {
		l.log.Error("this node was removed from the cluster: no server takes it back. Its guests go on running, and nobody manages them. " +
			"Save what you need from them; then stop this agent with SIGINT, which shuts them down, empty its folder, and join it anew with a token of 'novacron node token'")
	})
}

// run dials every known server until ctx ends, and those told of besides.
func (l *links) run(ctx context.Context, also []string) {
	servers := slices.Clone(l.who.state.Servers)
	for _, addr := range also {
		if !slices.Contains(servers, addr) {
			servers = append(servers, addr)
		}
	}
	l.learn(ctx, servers)
	l.wg.Go(func() { l.renewals(ctx) })
	if l.discover {
		l.wg.Go(func() { l.lookout(ctx) })
	}
	<-ctx.Done()
	l.wg.Wait()
}

// learn takes up servers it did not know. One that is no longer listed is let go
// when its session has ended.
func (l *links) learn(ctx context.Context, servers []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(servers) == 0 || slices.Equal(servers, l.listed) {
		return
	}
	l.listed = slices.Clone(servers)
	for _, addr := range servers {
		if addr == "" || l.kept[addr] {
			continue
		}
		l.kept[addr] = true
		l.wg.Go(func() { l.keep(ctx, addr) })
	}
	if err := l.who.remember(servers); err != nil {
		l.log.Warn("the list of servers cannot be kept for the next start", "err", err)
	}
}

// letGo ends the loop of a server that no server lists any more.
func (l *links) letGo(addr string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.listed, addr) {
		return false
	}
	delete(l.kept, addr)
	return true
}

// keep holds a session with one server, dialling again whenever it ends.
func (l *links) keep(ctx context.Context, addr string) {
	wait, told := backoffFirst, false
	for ctx.Err() == nil {
		shown := l.who.certificate()
		greeted, err := l.session(ctx, addr)
		if greeted {
			wait, told = backoffFirst, false
		}
		if ctx.Err() != nil || l.letGo(addr) {
			return
		}
		if errors.Is(err, nodelink.ErrExpired) {
			select {
			case l.refused <- shown:
			default: // it is being renewed
			}
		}
		if errs.Is(err, errs.NodeRemoved) {
			l.removed()
			wait, told = removedWait, true
		}
		if !told { // once per absence: it is dialled for as long as it takes
			l.log.Warn("there is no session with a server; dialling until there is", "server", addr, "err", err)
			told = true
		}
		if l.clock.Sleep(ctx, rand.N(wait)+time.Millisecond) != nil { //nolint:gosec // it only keeps agents from dialling in step: who guesses it gains nothing
			return
		}
		wait = min(wait*2, backoffLast)
	}
}

// session dials once and serves until the connection dies.
func (l *links) session(ctx context.Context, addr string) (welcomed bool, err error) {
	conn, err := l.dial(ctx, addr, nodelink.ALPNNode)
	if err != nil {
		return false, err
	}
	life, end := context.WithCancelCause(ctx)
	defer end(nil)
	p := &peer{links: l, addr: addr}
	handle := func(ctx context.Context, method string, body []byte) (any, error) {
		return l.agent.Handle(ctx, p, method, body)
	}
	var greeted atomic.Bool
	err = nodelink.ServeConn(life, conn, handle, func(upCtx context.Context, up *nodelink.Uplink) {
		w, err := l.agent.Greet(upCtx, up, l.version)
		if err != nil {
			end(err)
			return
		}
		greeted.Store(true)
		l.alive.Add(1)
		defer l.alive.Add(-1)
		l.peers.seen(conn.LocalAddr())
		defer l.peers.serves(&server{up: up, Peer: p, epoch: l.who.state.Epoch})()
		l.upOnce.Do(func() { close(l.up) })
		l.log.Info("joined a server", "server", addr)
		l.learn(ctx, w.Servers)
		lease := time.Duration(w.LeaseMS) * time.Millisecond
		end(l.agent.Serve(upCtx, up, lease, func(servers []string) { l.learn(ctx, servers) }))
	})
	if cause := context.Cause(life); cause != nil {
		err = cause
	}
	return greeted.Load(), err
}

func (l *links) dial(ctx context.Context, addr, alpn string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: dialTimeout}, Config: l.who.tls(alpn)}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, errs.New(errs.NodeUnreachable, "the server %s cannot be reached", addr).Because(err)
	}
	conn, ok := c.(*tls.Conn)
	if !ok {
		return nil, errs.New(errs.Internal, "a TLS dialer made another connection")
	}
	return conn, nil
}

// peer is the server at the other end of one session.
type peer struct {
	links *links
	addr  string
}

// Bulk implements agent.Peer.
func (p *peer) Bulk(ctx context.Context, ticket string) (agent.Stream, error) {
	conn, err := p.links.dial(ctx, p.addr, nodelink.ALPNBulk)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, ticket+"\n"); err != nil {
		_ = conn.Close()
		return nil, errs.New(errs.NodeUnreachable, "the bulk connection broke off").Because(err)
	}
	return conn, nil
}
