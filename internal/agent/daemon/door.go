package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// maxThrough is how many connections one door has at a time: more than any move has
// channels, disks and words.
const maxThrough = 64

// door is a port that stays open for one other node, with a ticket, for as long as a move
// takes.
type door struct {
	n      *neighbours
	from   id.ID
	ticket string
	bare   func(name string) bool
	serve  func(ctx context.Context, name string, c io.ReadWriteCloser)

	ctx  context.Context //nolint:containedctx // connections come after the call that opened the door has returned, and end with the door
	end  context.CancelFunc
	room chan struct{}
	work sync.WaitGroup
}

// Land implements agent.Neighbours.
func (n *neighbours) Land(from id.ID, ticket string, bare func(name string) bool, serve func(ctx context.Context, name string, c io.ReadWriteCloser)) (string, func(), error) {
	host, err := n.enter()
	if err != nil {
		return "", nil, err
	}
	l, err := n.enterAt(host)
	if err != nil {
		n.leave()
		return "", nil, err
	}
	d := &door{n: n, from: from, ticket: ticket, bare: bare, serve: serve, room: make(chan struct{}, maxThrough)}
	d.ctx, d.end = context.WithCancel(context.Background())
	d.work.Go(func() { d.accept(l) })
	return l.Addr().String(), sync.OnceFunc(func() {
		d.end()
		_ = l.Close()
		d.work.Wait()
		n.leave()
	}), nil
}

func (d *door) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // it is shut
		}
		select {
		case d.room <- struct{}{}:
			d.work.Go(func() {
				defer func() { <-d.room }()
				d.through(conn)
			})
		default:
			_ = conn.Close()
		}
	}
}

// handshake is the first byte of TLS, and none of a ticket.
const handshake = 0x16

// through serves a connection if it is the one node's, and has the ticket.
func (d *door) through(conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(clock.Deadline(greetTime))
	c, name, err := d.greet(conn)
	if err != nil {
		d.n.log.Warn("another node's connection was refused", "peer", conn.RemoteAddr(), "err", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	keepAlive(conn)
	d.serve(d.ctx, name, c)
}

// greet learns who has come for what. A bare connection has said no more than that it
// knows the ticket.
func (d *door) greet(conn net.Conn) (io.ReadWriteCloser, string, error) {
	raw := &through{conn, bufio.NewReaderSize(conn, 256)}
	first, err := raw.r.Peek(1)
	if err != nil {
		return nil, "", err
	}
	c, bare := raw, first[0] != handshake
	if !bare {
		secure := tls.Server(raw, d.n.config(d.from, true))
		c = &through{secure, bufio.NewReaderSize(secure, 256)}
	}
	line, err := c.r.ReadSlice('\n') // the handshake comes with it
	ticket, name, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{' '})
	if err != nil {
		return nil, "", err
	}
	if subtle.ConstantTimeCompare(ticket, []byte(d.ticket)) != 1 || bare && !d.bare(string(name)) {
		return nil, "", errs.New(errs.Unauthenticated, "it does not show what it should")
	}
	return c, string(name), nil
}

// through is a connection of which the first line was read.
type through struct {
	net.Conn
	r *bufio.Reader
}

// Read implements io.Reader.
func (t *through) Read(b []byte) (int, error) {
	if t.r.Buffered() > 0 {
		return t.r.Read(b)
	}
	return t.Conn.Read(b)
}

// Reach implements agent.Neighbours.
func (n *neighbours) Reach(ctx context.Context, w agent.Way) (io.ReadWriteCloser, error) {
	conn, err := n.dial(ctx, w.Node, w.Address, w.Ticket)
	if err != nil {
		return nil, err
	}
	if !w.Bare {
		if conn, err = n.greet(ctx, conn, w.Node); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(conn, w.Ticket+" "+w.Name+"\n"); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// keepAlive has a connection end when the other host is gone: nothing is said on some of a
// move's for long.
func keepAlive(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3})
	}
}
