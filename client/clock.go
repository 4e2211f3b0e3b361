package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// The one file of this package that asks the machine for the time.

func now() time.Time { return time.Now() }

// after gives a channel that receives once d has passed, and what frees it.
func after(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// sleep waits for d or until ctx ends, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	ch, stop := after(d)
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ch:
		return nil
	}
}

// Back-off between tries: doubled from the first to the last, with jitter.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 3 * time.Second
)

// backoff is how long to wait before the try after n failed ones.
func backoff(n int) time.Duration {
	d := backoffFirst << min(n, 10)
	d = min(d, backoffLast)
	return d/2 + rand.N(d/2) //nolint:gosec // jitter, not a secret
}

// watchdog calls f once nothing called what it gives, renew, for d, or until stop is
// called.
func watchdog(d time.Duration, f func()) (renew, stop func()) {
	t := time.AfterFunc(d, f)
	return func() { t.Reset(d) }, func() { t.Stop() }
}
