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
	ready map[contract.Stream]chan *sealed // read only

	mu sync.Mutex
	// line ends with the streams there are, for others to take their place; late tells whether
	// QEMU may connect for disks without anything prepared.
	line context.Context
	snap context.CancelFunc
	late bool
	// carried are the streams of disks that QEMU is connected to.
	carried int
	// renews: are streams of disks begun anew that break?
	renews bool
}

// openStreams makes the sockets.
func (g *guest) openStreams(ctx context.Context, as *tls.Config, dial contract.Dial) (*streams, error) {
	s := &streams{g: g, as: as, dial: dial, ready: map[contract.Stream]chan *sealed{
		contract.StreamMemory: make(chan *sealed, contract.MaxChannels+1), contract.StreamDisks: make(chan *sealed, contract.MaxDisks),
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
func (s *streams) reach(kind contract.Stream) (*sealed, error) {
	ctx, cancel := s.g.d.within(s.ctx, greetTime)
	defer cancel()
	far, err := s.dial(ctx, kind)
	if err != nil {
		return nil, err
	}
	c := sealAs(tls.Client, far, s.as)
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
func (s *streams) carry(kind contract.Stream, c net.Conn, far *sealed) {
	stop := context.AfterFunc(s.now(kind), func() { _ = c.Close() })
	defer stop()
	if kind == contract.StreamMemory {
		far.join(c)
		return
	}
	s.count(1)
	s.joinDisk(c, far)
	s.count(-1)
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

// letIn leads the source to QEMU, until the stream has ended.
func (g *guest) letIn(ctx context.Context, far io.ReadWriteCloser, s contract.Stream, as *tls.Config) error {
	at := g.entrants.time()
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	defer stop()
	c := sealAs(tls.Server, far, as)
	greet, met := g.d.within(ctx, greetTime)
	err := c.HandshakeContext(greet)
	met()
	if err != nil {
		return errs.New(errs.Unauthenticated, "somebody was not let into VM %s, which waits for its memory", g.ref.VM).Because(err)
	}
	switch s {
	case contract.StreamAgain:
		g.letAgain(ctx, c)
		return nil
	case contract.StreamDisks:
		left, ok := g.entrants.enter(far, at)
		if !ok {
			return nil
		}
		defer left()
	case contract.StreamMemory:
	}
	return g.leadIn(ctx, c, s)
}

// leadIn joins a stream whose other end is known with QEMU.
func (g *guest) leadIn(ctx context.Context, c *sealed, s contract.Stream) error {
	var dialer net.Dialer
	q, err := dialer.DialContext(ctx, "unix", filepath.Join(g.at.inside(), string(s)))
	if err != nil {
		return errs.New(errs.HostFailure, "a stream of a move does not reach the hypervisor of VM %s", g.ref.VM).Because(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = q.Close() })
	defer stop()
	if _, err := c.Write([]byte{welcome}); err != nil {
		_ = q.Close()
		return err
	}
	c.join(q)
	return nil
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
