package workflow

import (
	"errors"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// parked is a step's wish to be run again later.
type parked struct {
	reason string
	after  time.Duration
}

func (p *parked) Error() string { return "workflow: waits: " + p.reason }

// Wait is returned by a Do or Undo that cannot go on yet: the job is parked
// with the reason, no goroutine is held, and the step runs again from its
// beginning after d (a minute at most, so that a clock that was put back is seen
// as such) or as soon as Wake names the job. It is not a failure and is not counted.
//
// A Wake that comes between the step's look at the world and the parking is not
// lost: the job is then parked for no time.
func Wait(reason string, d time.Duration) error {
	return &parked{reason: reason, after: min(max(d, 0), mostWait)}
}

// mostWait bounds how long a job is parked; ClaimJobs counts on it.
const mostWait = time.Minute

func asWait(err error) (*parked, bool) {
	var p *parked
	ok := errors.As(err, &p)
	return p, ok
}

// retryable tells whether an error is worth another try of the same step.
func retryable(err error) bool {
	switch errs.CodeOf(err) {
	case errs.NodeUnreachable, errs.Timeout, errs.DBUnavailable:
		return true
	default:
		return false
	}
}

// Backoff is the pause after the n-th failure in a row (1 is the first).
type Backoff func(n int) time.Duration

// DefaultBackoff doubles from 250 ms to 5 s: ten failures take about 30 s.
func DefaultBackoff(n int) time.Duration {
	const first, most = 250 * time.Millisecond, 5 * time.Second
	if n > 5 {
		return most
	}
	return min(first<<max(n-1, 0), most)
}
