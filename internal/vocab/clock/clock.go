// Package clock is the only place that reads time or waits for it.
//
// Wall time (Now) is for display and records. Leases and timeouts count on
// Boot, CLOCK_BOOTTIME: it never steps and goes on while the machine sleeps, so
// a suspended laptop cannot believe that its lease is still good. Tests pass a
// Fake and advance it; nothing else in the tree may call the time package's
// clock functions, which internal/arch checks.
package clock

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells and waits for time.
type Clock interface {
	// Now is wall time, in UTC: for records and display only.
	Now() time.Time
	// Boot is the time since the machine booted, sleep included.
	Boot() time.Duration
	// Sleep waits for d or until ctx ends, whose error it returns.
	Sleep(ctx context.Context, d time.Duration) error
	// After gives a channel that receives once d has passed, and a stop function
	// that frees it.
	After(d time.Duration) (<-chan time.Time, func())
}

// System is the machine's clock.
type System struct{}

var _ Clock = System{}

// Now implements Clock.
func (System) Now() time.Time { return time.Now().UTC() }

// Boot implements Clock.
func (System) Boot() time.Duration {
	var ts unix.Timespec
	// CLOCK_BOOTTIME exists since Linux 2.6.39; it cannot fail on a machine that
	// runs this program.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// Sleep implements Clock.
func (s System) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, s, d) }

// After implements Clock.
func (System) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

func sleep(ctx context.Context, c Clock, d time.Duration) error {
	ch, stop := c.After(d)
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ch:
		return nil
	}
}

// Every calls f each period until ctx ends, first after one period. A call that
// takes long delays the next; calls never overlap or pile up.
func Every(ctx context.Context, c Clock, period time.Duration, f func(context.Context)) {
	for c.Sleep(ctx, period) == nil {
		f(ctx)
	}
}
