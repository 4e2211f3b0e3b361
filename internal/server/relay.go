package server

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Bounds of one relay.
const (
	// relayPiece is what is carried at a time, and with it all that a relay keeps, once for
	// each direction.
	relayPiece = 32 << 10
	// fetchTime is how long the other node may take to come, and comeTime the one that asked.
	fetchTime = 4 * time.Second
	comeTime  = 10 * time.Second
	// relayStalled is how long a node may take none of what it is sent.
	relayStalled = 2 * time.Minute
)

// relays are the connections of nodes that this server joins, since the nodes do not reach
// each other. What they carry is under TLS from node to node.
type relays struct {
	most    int
	pace    *pace
	clock   clock.Clock
	stalled time.Duration

	mu   sync.Mutex
	open int
	// carried counts bytes, refused those that there was no room for.
	carried, refused atomic.Int64
}

func newRelays(l Limits, c clock.Clock) *relays {
	return &relays{most: l.Relays, pace: &pace{rate: l.RelayRate, clock: c}, clock: c, stalled: relayStalled}
}

func (r *relays) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.most < 0:
		return errs.New(errs.Unsupported, "this server relays nothing between nodes (--max-relays -1)")
	case r.open >= r.most:
		r.refused.Add(1)
		return errs.New(errs.Conflict, "this server relays %d connections already, and no more (--max-relays)", r.open)
	}
	r.open++
	return nil
}

func (r *relays) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
}

func (r *relays) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// relay fetches the node that another one asks for, and gives that one a ticket for the
// connection that is joined with it.
func (a *agents) relay(ctx context.Context, from id.ID, ask nodelink.Relay) (nodelink.RelayReply, error) {
	if err := a.control.MayRelay(ctx, from, ask.Peer, ask.Ticket); err != nil {
		return nodelink.RelayReply{}, err
	}
	if err := a.relays.enter(); err != nil {
		return nodelink.RelayReply{}, err
	}
	fetch, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	other, err := a.tickets.dialBack(fetch, func(ticket string) error {
		return a.Call(fetch, ask.Peer, &nodelink.AdmitRelay{From: from, Address: ask.Address, Ticket: ticket}, nil)
	})
	if err == nil && nodeOf(other) != ask.Peer {
		_ = other.Close()
		err = errs.New(errs.Unauthenticated, "another node came than was asked")
	}
	if err != nil {
		a.relays.leave()
		return nodelink.RelayReply{}, err
	}
	return nodelink.RelayReply{Ticket: a.expect(from, other)}, nil
}

// expect gives the ticket by which a node is joined with another's connection, which is
// closed when it does not come.
func (a *agents) expect(from id.ID, other net.Conn) string {
	come := make(chan net.Conn, 1)
	gone := make(chan struct{})
	ticket := a.tickets.issue(func(c net.Conn) {
		if nodeOf(c) != from {
			_ = c.Close()
			return
		}
		select {
		case <-gone:
			_ = c.Close()
		case come <- c:
		}
	})
	go func() {
		defer a.relays.leave()
		defer a.tickets.cancel(ticket)
		defer close(gone)
		late, free := a.clock.After(comeTime)
		defer free()
		select {
		case c := <-come:
			a.relays.join(a.life, c, other)
		case <-late:
			_ = other.Close()
		case <-a.life.Done():
			_ = other.Close()
		}
	}()
	return ticket
}

// nodeOf is whose certificate a bulk connection was opened with.
func nodeOf(c net.Conn) id.ID {
	if b, ok := c.(*bulkConn); ok {
		return b.node
	}
	return id.Nil
}

// join carries what two connections say until both have ended, or one breaks, and closes
// them.
func (r *relays) join(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })
	defer stop()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		endWhenGone(way[0])
		wg.Go(func() {
			if r.carry(ctx, way[0], way[1]) != nil {
				_, _ = a.Close(), b.Close()
			}
		})
	}
	wg.Wait()
	_, _ = a.Close(), b.Close()
}

// carry carries one direction, and passes its end on.
func (r *relays) carry(ctx context.Context, to, from net.Conn) error {
	piece := make([]byte, relayPiece)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if err := r.pass(ctx, to, piece[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			half, can := to.(interface{ CloseWrite() error })
			if !can {
				return err
			}
			return half.CloseWrite()
		case err != nil:
			return err
		}
	}
}

func (r *relays) pass(ctx context.Context, to net.Conn, p []byte) error {
	if err := r.pace.take(ctx, len(p)); err != nil {
		return err
	}
	if err := to.SetWriteDeadline(clock.Deadline(r.stalled)); err != nil {
		return err
	}
	n, err := to.Write(p)
	r.carried.Add(int64(n))
	return err
}

// endWhenGone has a connection end soon when its host is gone: on some of them nothing is
// said for long.
func endWhenGone(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3})
	}
}

// pace shares bytes per second among all who take of them, in the order in which they come.
type pace struct {
	rate  int64 // 0 for no limit
	clock clock.Clock
	mu    sync.Mutex
	// free is when all that was taken has been used.
	free time.Duration
}

// take waits until n bytes may go.
func (p *pace) take(ctx context.Context, n int) error {
	if p.rate <= 0 {
		return nil
	}
	p.mu.Lock()
	now := p.clock.Boot()
	at := max(p.free, now)
	p.free = at + time.Duration(float64(n)/float64(p.rate)*float64(time.Second))
	p.mu.Unlock()
	return p.clock.Sleep(ctx, at-now)
}
