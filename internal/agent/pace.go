package agent

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// pacePiece is how much goes at a time: what waits for its turn behind one of the same move
// does not wait for long.
const pacePiece = 32 << 10

// pace keeps all that is sent of a guest within bytes per second, which may change while it
// is sent.
type pace struct {
	clock clock.Clock
	mu    sync.Mutex
	// of is the migration that it is about, and rate what that has; 0 for no limit.
	of   id.ID
	rate int64
	// free is when all that went has been paid for.
	free time.Duration
}

// begin is for another migration from now on.
func (p *pace) begin(of id.ID, rate int64, c clock.Clock) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock, p.of, p.rate, p.free = c, of, max(0, rate), 0
}

// piece is how much of b goes at once.
func (p *pace) piece(b []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return b
	}
	return b[:min(len(b), pacePiece)]
}

// set changes the rate of a migration; that of another stays.
func (p *pace) set(of id.ID, rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == of {
		p.rate = max(0, rate)
	}
}

// take waits until n bytes may go.
func (p *pace) take(ctx context.Context, n int) error {
	p.mu.Lock()
	if p.rate == 0 {
		p.mu.Unlock()
		return nil
	}
	now := p.clock.Boot()
	at := max(p.free, now)
	p.free = at + time.Duration(float64(n)/float64(p.rate)*float64(time.Second))
	p.mu.Unlock()
	return p.clock.Sleep(ctx, at-now)
}

// pacedWriter writes at a pace.
type pacedWriter struct {
	ctx  context.Context //nolint:containedctx // io.Writer has no context: this one is of the move, and ends the waits of its writes
	pace *pace
	to   io.Writer
}

// Write implements io.Writer.
func (w pacedWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		piece := w.pace.piece(b)
		if err := w.pace.take(w.ctx, len(piece)); err != nil {
			return n, err
		}
		m, err := w.to.Write(piece)
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

// pacedStream is a stream of a move that is written at its pace.
type pacedStream struct {
	io.ReadWriteCloser
	w pacedWriter
}

// Write implements io.Writer.
func (s pacedStream) Write(b []byte) (int, error) { return s.w.Write(b) }

// halfPaced is one of which either direction can be ended by itself.
type halfPaced struct {
	pacedStream
	half interface{ CloseWrite() error }
}

// CloseWrite ends what is written.
func (s halfPaced) CloseWrite() error { return s.half.CloseWrite() }

// over writes to a stream at the pace.
func (p *pace) over(ctx context.Context, c io.ReadWriteCloser) io.ReadWriteCloser {
	s := pacedStream{c, pacedWriter{ctx, p, c}}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return halfPaced{s, half}
	}
	return s
}

// paceMove changes what a move that is under way from here may take.
func (a *Agent) paceMove(_ context.Context, _ Peer, c *nodelink.PaceMove) (any, error) {
	a.guest(c.VM).pace.set(c.Migration, c.BytesPerSecond)
	return nodelink.Done{}, nil
}
