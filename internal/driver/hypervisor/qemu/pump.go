package qemu

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	// greetTime bounds how long two ends of a stream may take to know each other.
	greetTime = 15 * time.Second
	// welcome is what a target says first, once it knows who has come.
	welcome = 'w'
)

// streams are the streams of a source, from the sockets that its QEMU connects to. They
// all end with close. They speak TLS with the target, and QEMU does not: it would stand
// still, with its guest, for as long as its peer takes to answer.
type streams struct {
	g    *guest
	as   *tls.Config
	dial contract.Dial

	ctx   context.Context
	end   context.CancelFunc
	work  sync.WaitGroup
	doors []*net.UnixListener
	ready map[contract.Stream]chan *tls.Conn // read only

	mu sync.Mutex
	// line ends with the streams there are, for others to take their place; late tells whether
	// QEMU may connect for disks without anything prepared.
	line context.Context
	snap context.CancelFunc
	late bool
	// renews: are streams of disks begun anew that break?
	renews bool
}

// openStreams makes the sockets.
func (g *guest) openStreams(ctx context.Context, as *tls.Config, dial contract.Dial) (*streams, error) {
	s := &streams{g: g, as: as, dial: dial, ready: map[contract.Stream]chan *tls.Conn{
		contract.StreamMemory: make(chan *tls.Conn, contract.MaxChannels+1), contract.StreamDisks: make(chan *tls.Conn, contract.MaxDisks),
	}}
	s.ctx, s.end = context.WithCancel(ctx)
	s.line, s.snap = context.WithCancel(s.ctx)
	for _, kind := range []contract.Stream{contract.StreamMemory, contract.StreamDisks} {
		if err := s.listen(kind); err != nil {
			s.close()
			return nil, errs.New(errs.HostFailure, "the sockets of a move of VM %s cannot be made", g.ref.VM).Because(err)
		}
	}
	return s, nil
}

func (s *streams) listen(kind contract.Stream) error {
	path := filepath.Join(s.g.at.inside(), string(kind))
	if err := os.Remove(path); err != nil && !missing(err) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	s.doors = append(s.doors, l)
	if uid := s.g.rec.UID; uid != 0 {
		if err := os.Lchown(path, uid, uid); err != nil {
			return err
		}
	}
	s.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// In the order in which QEMU connects: it takes the first for that of memory,
			// and the others for its channels.
			select {
			case far := <-s.ready[kind]:
				s.work.Go(func() { s.carry(kind, c, far) })
			default:
				s.work.Go(func() { s.unprepared(kind, c) })
			}
		}
	})
	return nil
}

// prepare opens so many streams to the target, for connections that QEMU is about to
// make.
func (s *streams) prepare(kind contract.Stream, n int) error {
	for range n {
		c, err := s.reach(kind)
		if err != nil {
			return errs.New(errs.HostFailure, "the other host of VM %s's move cannot be reached, or is not who it should be", s.g.ref.VM).Because(err)
		}
		s.ready[kind] <- c
	}
	return nil
}

// reach opens a stream to the target, and returns once each end knows the other.
func (s *streams) reach(kind contract.Stream) (*tls.Conn, error) {
	ctx, cancel := s.g.d.within(s.ctx, greetTime)
	defer cancel()
	far, err := s.dial(ctx, kind)
	if err != nil {
		return nil, err
	}
	c := tls.Client(noDeadlines{far}, s.as)
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	first := make([]byte, 1)
	if _, err = io.ReadFull(c, first); err == nil && first[0] != welcome {
		err = errors.New("the other host does not let it in")
	}
	if !stop() || err != nil {
		_ = far.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	context.AfterFunc(s.now(kind), func() { _ = far.Close() })
	return c, nil
}

// carry joins a connection of QEMU's with a stream that was prepared for it.
func (s *streams) carry(kind contract.Stream, c net.Conn, far *tls.Conn) {
	stop := context.AfterFunc(s.now(kind), func() { _ = c.Close() })
	defer stop()
	if kind == contract.StreamMemory {
		join(c, far)
		return
	}
	s.joinDisk(c, far)
	s.cut() // what takes its place comes after all of them
}

// close ends all streams; they have ended when it returns.
func (s *streams) close() {
	s.end()
	for _, l := range s.doors {
		_ = l.Close() // and with it its file
	}
	s.work.Wait()
}

// join carries bytes between two connections until both directions have ended.
func join(a, b io.ReadWriteCloser) {
	var both sync.WaitGroup
	both.Go(func() { pour(a, b) })
	both.Go(func() { pour(b, a) })
	both.Wait()
	_, _ = a.Close(), b.Close()
}

// pour carries one direction, and passes its end on; its breaking ends both.
func pour(to, from io.ReadWriteCloser) {
	_, err := io.Copy(to, from)
	half, can := to.(interface{ CloseWrite() error })
	if err != nil || !can || half.CloseWrite() != nil {
		_, _ = to.Close(), from.Close()
	}
}

// noDeadlines is a stream that TLS runs in. Who uses it ends it, instead of deadlines.
type noDeadlines struct{ io.ReadWriteCloser }

// LocalAddr implements net.Conn, as what follows does.
func (noDeadlines) LocalAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// RemoteAddr names nobody.
func (noDeadlines) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// SetDeadline does nothing.
func (noDeadlines) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (noDeadlines) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (noDeadlines) SetWriteDeadline(time.Time) error { return nil }

// entrance gives a connection at whose other end the source is let in to a socket of
// QEMU's, and nobody else.
func (g *guest) entrance(s contract.Stream, as *tls.Config) (io.ReadWriteCloser, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var ends [2]net.Conn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "stream")
		ends[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
	}
	g.d.background(func() { g.letIn(ends[0], s, as) })
	if g.d.dead() {
		_, _ = ends[0].Close(), ends[1].Close()
		return nil, errClosed()
	}
	return ends[1], nil
}

// letIn leads the source to QEMU.
func (g *guest) letIn(raw net.Conn, s contract.Stream, as *tls.Config) {
	defer func() { _ = raw.Close() }()
	at := g.entrants.time()
	ctx, cancel := context.WithCancel(g.d.life)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	c := tls.Server(raw, as)
	greet, met := g.d.within(ctx, greetTime)
	err := c.HandshakeContext(greet)
	met()
	if err != nil {
		g.d.log.Warn("somebody was not let into a guest that waits for its memory", "vm", g.ref.VM, "error", err)
		return
	}
	switch s {
	case contract.StreamAgain:
		g.letAgain(ctx, c)
		return
	case contract.StreamDisks:
		left, ok := g.entrants.enter(raw, at)
		if !ok {
			return
		}
		defer left()
	case contract.StreamMemory:
	}
	var dialer net.Dialer
	q, err := dialer.DialContext(ctx, "unix", filepath.Join(g.at.inside(), string(s)))
	if err != nil {
		g.d.log.Warn("a stream of a move does not reach the hypervisor", "vm", g.ref.VM, "error", err)
		return
	}
	defer func() { _ = q.Close() }()
	stopped := context.AfterFunc(ctx, func() { _ = q.Close() })
	defer stopped()
	if _, err := c.Write([]byte{welcome}); err == nil {
		join(q, c)
	}
}

// letAgain begins the streams of disks anew, and says so.
func (g *guest) letAgain(ctx context.Context, c net.Conn) {
	timed, cancel := g.d.within(ctx, greetTime)
	defer cancel()
	if err := g.beginAnew(timed); err != nil {
		g.d.log.Warn("the streams of a move cannot be begun anew", "vm", g.ref.VM, "error", err)
		return
	}
	_, _ = c.Write([]byte{welcome})
}

// seen is how QEMU sees what is in the folder of its sockets.
func (g *guest) seen(name string) string {
	if g.d.jail.spec != nil {
		return jailRun + "/" + name
	}
	return filepath.Join(g.at.inside(), name)
}
