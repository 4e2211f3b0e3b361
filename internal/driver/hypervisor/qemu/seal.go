package qemu

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// batch is how many bytes cross a process's border at once, where there are as many: TLS
	// itself reads and writes record by record.
	batch = 128 << 10
	// maxPlain and maxRecord bound what a record of TLS 1.3 holds, and its length (RFC 8446,
	// section 5).
	maxPlain  = 1 << 14
	maxRecord = 5 + maxPlain + 256
)

// sealed is a stream between two hosts, under TLS.
type sealed struct {
	*tls.Conn
	under *batched
}

// sealAs makes a stream a sealed one of the end that as gives: tls.Client, or tls.Server.
func sealAs(as func(net.Conn, *tls.Config) *tls.Conn, far io.ReadWriteCloser, c *tls.Config) *sealed {
	under := &batched{ReadWriteCloser: far, r: bufio.NewReaderSize(far, batch)}
	return &sealed{as(under, c), under}
}

// join carries bytes between a stream and a connection of QEMU's until both directions have
// ended; both are closed then.
func (s *sealed) join(q net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { s.pass(q, s.Conn, s.receive(q)) })
	both.Go(func() { s.pass(s.Conn, q, s.send(q)) })
	both.Wait()
	_, _ = s.Close(), q.Close()
}

// pass passes the end of one direction on; its breaking ends both.
func (s *sealed) pass(to, from net.Conn, err error) {
	half, can := to.(interface{ CloseWrite() error })
	if !errors.Is(err, io.EOF) || !can || half.CloseWrite() != nil {
		_, _ = to.Close(), from.Close()
	}
}

// send carries what QEMU says, until that ends with io.EOF or breaks.
func (s *sealed) send(from io.Reader) error {
	buf := make([]byte, batch)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if e := s.under.together(func() error { _, e := s.Write(buf[:n]); return e }); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
	}
}

// receive carries what the other host's says.
func (s *sealed) receive(to io.Writer) error {
	buf := make([]byte, batch)
	for {
		n, err := s.Read(buf)
		// with so much behind it, the next record is here whole, and nobody waits for it
		for err == nil && s.under.r.Buffered() >= maxRecord && len(buf)-n >= maxPlain {
			var more int
			more, err = s.Read(buf[n:])
			n += more
		}
		if n > 0 {
			if _, e := to.Write(buf[:n]); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
	}
}

// batched is a stream that TLS runs in. Who uses it ends it, instead of deadlines.
type batched struct {
	io.ReadWriteCloser
	r *bufio.Reader

	mu      sync.Mutex
	holding bool
	held    []byte
}

// Read implements net.Conn, as all that follows does.
func (b *batched) Read(p []byte) (int, error) { return b.r.Read(p) }

// Write writes, or holds what is to be written together.
func (b *batched) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holding {
		b.held = append(b.held, p...)
		return len(p), nil
	}
	return b.ReadWriteCloser.Write(p)
}

// together writes what write writes at once.
func (b *batched) together(write func() error) error {
	b.mu.Lock()
	b.holding = true
	b.mu.Unlock()
	err := write()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding = false
	if err == nil {
		_, err = b.ReadWriteCloser.Write(b.held)
	}
	b.held = b.held[:0]
	return err
}

// LocalAddr names nobody.
func (*batched) LocalAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// RemoteAddr names nobody.
func (*batched) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// SetDeadline does nothing.
func (*batched) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (*batched) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (*batched) SetWriteDeadline(time.Time) error { return nil }
