package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
	"github.com/novacron/novacron/internal/vocab/clock"
)

const (
	ringBytes  = 128 << 10
	maxClients = 64
	// farewell is how long readers may take for the rest when all is over.
	farewell = 5 * time.Second
	// patience is how long a guest waits for its log's disk, once.
	patience = time.Second
	// nudge is how often a stuck writer is looked after.
	nudge = time.Second
)

// request is the first line of a connection to the keeper's socket.
type request struct {
	Op   string `json:"op"`
	From int64  `json:"from,omitempty"`
}

// The operations.
const (
	opConsole = "console" // then bytes both ways; one at a time
	opFollow  = "follow"  // then the stream from an offset, until the end or until the reader falls behind
	opSync    = "sync"    // answers when what was said by now is in the files
	opExit    = "exit"    // answers when exit.json is written
)

// answer is the first line back.
type answer struct {
	Busy bool `json:"busy,omitempty"`
	// Over says that the guest has ended and nothing comes any more.
	Over bool `json:"over,omitempty"`
	// From is where a follower's stream begins.
	From int64 `json:"from"`
	// End is the offset after the newest byte.
	End int64 `json:"end"`
}

// console is the serial line and those around it.
type console struct {
	clock clock.Clock
	ring  *serial.Ring
	log   *logWriter
	own   *net.UnixListener

	line   net.Conn // to the hypervisor
	writer chan struct{}
	slots  chan struct{}

	drained, logged, recorded chan struct{}
	clients                   sync.WaitGroup
	once                      sync.Once
}

func newConsole(root *os.Root, own *net.UnixListener, logBytes int64, c clock.Clock) (*console, error) {
	if logBytes <= 0 {
		return nil, errors.New("the log needs a size")
	}
	k := &console{
		clock: c, own: own,
		ring:    serial.NewRing(ringBytes),
		log:     newLogWriter(root, logBytes),
		writer:  make(chan struct{}, 1),
		slots:   make(chan struct{}, maxClients),
		drained: make(chan struct{}), logged: make(chan struct{}), recorded: make(chan struct{}),
	}
	return k, nil
}

// attach connects to the hypervisor's end and begins to drain it. The connection
// is queued if the hypervisor does not yet accept.
func (k *console) attach(path string) error {
	line, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	k.line = line
	go k.drain()
	go k.record()
	go k.serve()
	return nil
}

// drain takes whatever the guest says, at once and for ever. A guest that talks
// faster than the disk writes is slowed to it; a disk that does not move at all is
// waited for once, and then loses bytes until it has caught up.
func (k *console) drain() {
	defer close(k.drained)
	defer func() { _ = k.ring.Close() }()
	buf := make([]byte, 16<<10)
	lossy := false
	for {
		n, err := k.line.Read(buf)
		_, _ = k.ring.Write(buf[:n])
		if err != nil {
			return
		}
		switch behind := k.ring.End() - k.log.written(); {
		case behind <= ringBytes/2:
			lossy = false
		case !lossy:
			ctx, stop := k.within(patience)
			lossy = k.log.wait(ctx, k.ring.End()-ringBytes/2) != nil
			stop()
		}
	}
}

// record brings the stream to the files at its own pace.
func (k *console) record() {
	defer close(k.logged)
	_, _ = io.Copy(k.log, k.ring.Reader(context.Background(), 0, true))
	k.log.close()
}

// finish returns when the rest of the console is in the log. The hypervisor is
// gone, so its end of the line is closed.
func (k *console) finish() {
	ctx, stop := k.within(farewell)
	defer stop()
	for _, ch := range []<-chan struct{}{k.drained, k.logged} {
		select {
		case <-ch:
		case <-ctx.Done(): // a disk that hangs costs the log, not the record
		}
	}
}

// dismiss tells those who wait that the end is recorded, and gives readers a
// moment for the rest.
func (k *console) dismiss() {
	k.once.Do(func() { close(k.recorded) })
	_ = k.own.Close()
	done := make(chan struct{})
	go func() {
		k.clients.Wait()
		close(done)
	}()
	ctx, stop := k.within(farewell)
	defer stop()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// within gives a context that ends after d on the keeper's clock.
func (k *console) within(d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_ = k.clock.Sleep(ctx, d)
		cancel()
	}()
	return ctx, cancel
}

func (k *console) serve() {
	for {
		c, err := k.own.AcceptUnix()
		if err != nil {
			return
		}
		select {
		case k.slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		k.clients.Go(func() {
			defer func() { <-k.slots }()
			defer func() { _ = c.Close() }()
			k.client(c)
		})
	}
}

// client serves one connection.
func (k *console) client(c *net.UnixConn) {
	ctx, stop := k.within(farewell)
	hurry := context.AfterFunc(ctx, func() { _ = c.Close() })
	in := bufio.NewReaderSize(c, 4<<10)
	line, err := in.ReadSlice('\n')
	hurry()
	stop()
	var q request
	if err != nil || json.Unmarshal(line, &q) != nil {
		return
	}
	switch q.Op {
	case opConsole:
		k.clientConsole(c, in)
	case opFollow:
		k.follow(c, q.From)
	case opSync:
		end := k.ring.End()
		ctx, stop := k.within(farewell)
		defer stop()
		_ = k.log.wait(ctx, end)
		reply(c, answer{End: end})
	case opExit:
		<-k.recorded
		reply(c, answer{End: k.ring.End()})
	}
}

func reply(c net.Conn, a answer) bool { return json.NewEncoder(c).Encode(a) == nil }

// follow sends the stream from an offset until it ends or the client does. A
// client too slow for the ring is sent away, to read on from the files.
func (k *console) follow(c *net.UnixConn, from int64) {
	at := max(from, k.ring.Start())
	if !reply(c, answer{From: at, End: k.ring.End(), Over: k.ring.Over(at)}) {
		return
	}
	gone := make(chan struct{})
	go func() { // noticed even while the guest is silent
		_, _ = io.Copy(io.Discard, onlyReader{c})
		close(gone)
	}()
	buf := make([]byte, 16<<10)
	for {
		n, next, more, err := k.ring.ReadFrom(at, buf)
		if err != nil || next-int64(n) != at {
			return
		}
		at = next
		if more == nil {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		select {
		case <-more:
		case <-gone:
			return
		}
	}
}

// onlyReader and onlyWriter hide the faster ways of a connection, which would
// bypass what is around it.
type onlyReader struct{ io.Reader }

type onlyWriter struct{ io.Writer }

// clientConsole serves the one writer. The line is free again before the writer
// sees the connection end.
func (k *console) clientConsole(c *net.UnixConn, in *bufio.Reader) {
	select {
	case k.writer <- struct{}{}:
		defer func() { <-k.writer }()
	default:
		reply(c, answer{Busy: true})
		return
	}
	from := k.ring.End()
	if !reply(c, answer{End: from}) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan struct{})
	go func() {
		defer close(out)
		_, _ = io.Copy(onlyWriter{c}, k.ring.Reader(ctx, from, true))
		_ = c.CloseRead() // the machine has ended, or the client reads no more
	}()
	k.copyIn(c, in)
	cancel()
	_ = c.SetWriteDeadline(time.Unix(1, 0)) // whatever is still on its way is not wanted
	<-out
}

// copyIn types into the guest. A guest that takes nothing holds the writer back,
// but only while the writer is still there.
func (k *console) copyIn(c *net.UnixConn, in io.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := in.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			_ = k.line.SetWriteDeadline(clock.Deadline(nudge))
			m, err := k.line.Write(rest)
			rest = rest[m:]
			if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || hungUp(c)) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hungUp tells whether the other side has closed, even with input still unread.
func hungUp(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0
	})
	return err != nil || gone
}
