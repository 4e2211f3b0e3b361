package clock

import (
	"context"
	"sync"
	"time"
)

// Fake is a clock that stands still until a test advances it. It is safe for
// concurrent use.
type Fake struct {
	mu      sync.Mutex
	now     time.Time
	boot    time.Duration
	waiters map[*waiter]struct{}
	changed chan struct{}
}

type waiter struct {
	at time.Duration
	ch chan time.Time
}

var _ Clock = (*Fake)(nil)

// NewFake starts at a fixed moment, 2026-01-01 00:00 UTC, one hour after boot.
func NewFake() *Fake {
	return &Fake{
		now:     time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		boot:    time.Hour,
		waiters: map[*waiter]struct{}{},
		changed: make(chan struct{}),
	}
}

// Now implements Clock.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Boot implements Clock.
func (f *Fake) Boot() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.boot
}

// Sleep implements Clock.
func (f *Fake) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, f, d) }

// After implements Clock.
func (f *Fake) After(d time.Duration) (<-chan time.Time, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &waiter{at: f.boot + d, ch: make(chan time.Time, 1)}
	if d <= 0 {
		w.ch <- f.now
		return w.ch, func() {}
	}
	f.waiters[w] = struct{}{}
	close(f.changed)
	f.changed = make(chan struct{})
	return w.ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.waiters, w)
	}
}

// Advance moves wall and boot time together and wakes whoever waited for it.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now, f.boot = f.now.Add(d), f.boot+d
	for w := range f.waiters {
		if w.at <= f.boot {
			w.ch <- f.now
			delete(f.waiters, w)
		}
	}
}

// StepWall moves wall time alone, as NTP or an operator would: leases must not
// notice.
func (f *Fake) StepWall(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// Waiters blocks until at least n callers wait on the clock, so that a test
// advances it only when everyone is asleep.
func (f *Fake) Waiters(ctx context.Context, n int) error {
	for {
		f.mu.Lock()
		got, changed := len(f.waiters), f.changed
		f.mu.Unlock()
		if got >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
