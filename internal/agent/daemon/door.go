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

	"github.com/novacron/novacron/internal/vocab/clock"
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
	serve  func(ctx context.Context, name string, c io.ReadWriteCloser)

	ctx  context.Context //nolint:containedctx // connections come after the call that opened the door has returned, and end with the door
	end  context.CancelFunc
	room chan struct{}
	work sync.WaitGroup
}

// Land implements agent.Neighbours.
func (n *neighbours) Land(from id.ID, ticket string, serve func(ctx context.Context, name string, c io.ReadWriteCloser)) (string, func(), error) {
	host, err := n.enter()
	if err != nil {
		return "", nil, err
	}
	l, err := n.enterAt(host)
	if err != nil {
		n.leave()
		return "", nil, err
	}
	d := &door{n: n, from: from, ticket: ticket, serve: serve, room: make(chan struct{}, maxThrough)}
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

// through serves a connection if it is the one node's, and has the ticket.
func (d *door) through(conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(clock.Deadline(greetTime))
	c := tls.Server(conn, d.n.config(d.from, true))
	r := bufio.NewReaderSize(c, 256)
	line, err := r.ReadSlice('\n') // the handshake comes with it
	ticket, name, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{' '})
	if err != nil || subtle.ConstantTimeCompare(ticket, []byte(d.ticket)) != 1 {
		d.n.log.Warn("another node's connection was refused", "peer", conn.RemoteAddr(), "err", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	keepAlive(conn)
	d.serve(d.ctx, string(name), &through{c, r})
}

// through is a connection of which the first line was read.
type through struct {
	*tls.Conn
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
func (n *neighbours) Reach(ctx context.Context, node id.ID, address, ticket, name string) (io.ReadWriteCloser, error) {
	raw, err := n.dial(ctx, node, address, ticket)
	if err != nil {
		return nil, err
	}
	conn, err := n.greet(ctx, raw, node)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, ticket+" "+name+"\n"); err != nil {
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
