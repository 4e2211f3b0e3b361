package serial

import (
	"context"
	"io"
	"sync"
)

// Ring is a bounded memory of a byte stream with any number of readers. The
// zero value is not usable; make one with NewRing. It is safe for concurrent
// use.
type Ring struct {
	mu      sync.Mutex
	keep    int
	buf     []byte // the newest bytes; trimmed to keep when twice as long
	end     int64  // offset after the last byte of buf
	closed  bool
	changed chan struct{} // closed and replaced when something changes; nil while nobody waits
}

// NewRing makes a ring that keeps at least the newest keep bytes. Memory grows
// with what is written, up to twice that.
func NewRing(keep int) *Ring { return &Ring{keep: keep} }

// Write implements io.Writer. It never blocks; after Close it is refused with
// io.ErrClosedPipe.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, io.ErrClosedPipe
	}
	r.end += int64(len(p))
	r.buf = append(r.buf, p...)
	if len(r.buf) > 2*r.keep {
		n := copy(r.buf, r.buf[len(r.buf)-r.keep:])
		r.buf = r.buf[:n]
	}
	r.wake()
	return len(p), nil
}

// Close ends the stream: readers get what is left and then io.EOF.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.wake()
	return nil
}

// Start is the offset of the oldest byte kept.
func (r *Ring) Start() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.start()
}

// End is the offset after the newest byte.
func (r *Ring) End() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

func (r *Ring) start() int64 { return r.end - int64(len(r.buf)) }

func (r *Ring) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Over tells whether nothing comes at offset from any more.
func (r *Ring) Over(from int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed && from >= r.end
}

// ReadFrom copies bytes at offset from on into p and gives the offset after
// them. Bytes no longer kept are skipped. With nothing to give, it returns a
// channel that is closed when that changes, or io.EOF when it never will.
func (r *Ring) ReadFrom(from int64, p []byte) (n int, next int64, more <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.start() {
		from = r.start()
	}
	if from < r.end {
		n = copy(p, r.buf[from-r.start():])
		return n, from + int64(n), nil, nil
	}
	if r.closed {
		return 0, from, nil, io.EOF
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return 0, from, r.changed, nil
}

// Reader reads from an offset. With follow it waits for more until the ring is
// closed or ctx ends; without, it ends where the ring ended when it was made.
func (r *Ring) Reader(ctx context.Context, from int64, follow bool) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	rd := &reader{ring: r, ctx: ctx, cancel: cancel, at: from, until: -1}
	if !follow {
		rd.until = r.End()
	}
	return rd
}

type reader struct {
	ring   *Ring
	ctx    context.Context
	cancel context.CancelFunc
	at     int64
	until  int64 // offset to end at; -1 for never
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if r.ctx.Err() != nil {
			return 0, io.EOF
		}
		if r.until >= 0 {
			if r.at >= r.until {
				return 0, io.EOF
			}
			p = p[:min(int64(len(p)), r.until-r.at)]
		}
		n, next, more, err := r.ring.ReadFrom(r.at, p)
		r.at = next
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return 0, io.EOF
		}
	}
}

// Close implements io.Closer; it also ends a Read that waits.
func (r *reader) Close() error {
	r.cancel()
	return nil
}
