// Package outbox hands status changes to a sink, in order, with no lock held.
//
// A driver records a change under its own lock and calls Put there, which fixes
// the order; after unlocking it calls Flush, which delivers. Whoever flushes
// first delivers for everyone, so one sink is never called twice at once and may
// itself call the driver. There is no goroutine: in a single-threaded test the
// sink has been called when the driver's method returns.
//
// What was put and not yet flushed dies with the process; the next agent learns
// the same from Adopt.
package outbox

import (
	"sync"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
)

// Outbox delivers to one sink.
type Outbox struct {
	sink contract.Sink

	mu      sync.Mutex
	idle    sync.Cond
	queue   []contract.Status
	sending bool
	closed  bool
}

// New makes an outbox for a sink; a nil sink drops everything.
func New(sink contract.Sink) *Outbox {
	if sink == nil {
		sink = func(contract.Status) {}
	}
	o := &Outbox{sink: sink}
	o.idle.L = &o.mu
	return o
}

// Put appends a change. The caller holds the lock that orders changes.
func (o *Outbox) Put(s contract.Status) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.queue = append(o.queue, s)
	}
}

// Flush delivers what was put. It returns early if another call is delivering;
// that one takes the new changes along. The caller holds no lock.
func (o *Outbox) Flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending {
		return
	}
	o.sending = true
	for len(o.queue) > 0 {
		s := o.queue[0]
		o.queue = o.queue[1:]
		o.mu.Unlock()
		o.sink(s)
		o.mu.Lock()
	}
	o.queue = nil
	o.sending = false
	o.idle.Broadcast()
}

// Close drops what is not yet delivered and returns when the sink is not being
// called and never will be again. It must not be called from the sink.
func (o *Outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.queue = true, nil
	for o.sending {
		o.idle.Wait()
	}
}
