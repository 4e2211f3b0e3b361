package admit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// Why a place was not given.
var (
	// ErrFull: the key's line is as long as it may be.
	ErrFull = errors.New("too many wait already")
	// ErrLate: none became free in time.
	ErrLate = errors.New("no place became free in time")
)

// Bounds are the measures of a Fair.
type Bounds struct {
	// Places is how many there are.
	Places int
	// Line is how many of one key may wait, Waiting how many of all.
	Line, Waiting int
	// Patience is how long one waits.
	Patience time.Duration
}

// Fair gives places to keys, each its share. It is safe for concurrent use.
type Fair[K comparable] struct {
	b     Bounds
	clock clock.Clock

	mu      sync.Mutex
	used    int
	waiting int
	keys    map[K]*holder[K]
	// lines are the keys that wait, who is next first.
	lines []*holder[K]
}

// holder is a key that has places or waits for some.
type holder[K comparable] struct {
	key  K
	held int
	line []*waiter
}

// waiter is one in a line. Its fields are guarded by Fair.mu; given is closed when
// it has a place.
type waiter struct {
	given chan struct{}
	has   bool
}

// NewFair makes places that are all free.
func NewFair[K comparable](b Bounds, c clock.Clock) *Fair[K] {
	b.Places = max(b.Places, 1)
	return &Fair[K]{b: b, clock: c, keys: map[K]*holder[K]{}}
}

// Enter gives the key a place, perhaps after a wait; leave gives it back and may be
// called more than once. The error is ErrFull, ErrLate, or the end of ctx.
func (f *Fair[K]) Enter(ctx context.Context, key K) (leave func(), err error) {
	w, h, err := f.ask(key)
	if err != nil {
		return nil, err
	}
	leave = sync.OnceFunc(func() { f.leave(h) })
	if w == nil {
		return leave, nil
	}
	late, free := f.clock.After(f.b.Patience)
	defer free()
	select {
	case <-w.given:
		return leave, nil
	case <-late:
		err = ErrLate
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if f.giveUp(h, w) {
		return nil, err
	}
	return leave, nil // it was given meanwhile
}

// ask takes a place at once, or stands in line.
func (f *Fair[K]) ask(key K) (*waiter, *holder[K], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.keys[key]
	if h == nil {
		h = &holder[K]{key: key}
		f.keys[key] = h
	}
	if len(h.line) == 0 && f.may(h) {
		f.give(h)
		return nil, h, nil
	}
	if len(h.line) >= f.b.Line || f.waiting >= f.b.Waiting {
		f.forget(h)
		return nil, nil, ErrFull
	}
	if len(h.line) == 0 {
		f.lines = append(f.lines, h)
	}
	w := &waiter{given: make(chan struct{})}
	h.line = append(h.line, w)
	f.waiting++
	return w, h, nil
}

// may tells whether a key may have one more place: while it has fewer than twice as
// many as are free.
func (f *Fair[K]) may(h *holder[K]) bool { return h.held < 2*(f.b.Places-f.used) }

func (f *Fair[K]) give(h *holder[K]) {
	h.held++
	f.used++
}

func (f *Fair[K]) forget(h *holder[K]) {
	if h.held == 0 && len(h.line) == 0 {
		delete(f.keys, h.key)
	}
}

func (f *Fair[K]) leave(h *holder[K]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.held--
	f.used--
	f.forget(h)
	f.serve()
}

// serve gives what is free to whoever may have it, a line at a time.
func (f *Fair[K]) serve() {
	for {
		i := slices.IndexFunc(f.lines, f.may)
		if i < 0 {
			return
		}
		h := f.lines[i]
		w := h.line[0]
		h.line = h.line[1:]
		f.lines = slices.Delete(f.lines, i, i+1)
		if len(h.line) > 0 {
			f.lines = append(f.lines, h)
		}
		f.waiting--
		f.give(h)
		w.has = true
		close(w.given)
	}
}

// giveUp takes one out of its line; false when it has a place already.
func (f *Fair[K]) giveUp(h *holder[K], w *waiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.has {
		return false
	}
	h.line = slices.DeleteFunc(h.line, func(o *waiter) bool { return o == w })
	f.waiting--
	if len(h.line) == 0 {
		f.lines = slices.DeleteFunc(f.lines, func(o *holder[K]) bool { return o == h })
	}
	f.forget(h)
	return true
}

// Load is how many places are taken, and how many wait for one.
func (f *Fair[K]) Load() (used, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used, f.waiting
}
