package control

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// LeaseTTL is how long a node counts as alive after the renewal that this server
// saw last. Agents renew at a third of it and count from when they sent, so an
// agent always expires first.
const LeaseTTL = 10 * time.Second

// watchEvery is how often the renewal numbers are read; beats are written in
// batches as often.
const watchEvery = 500 * time.Millisecond

// Liveness judges nodes' leases by this server's own CLOCK_BOOTTIME: from when
// it first saw each renewal's number, with database reads working throughout. A
// gap in the reads suspends judgement: everyone gets a full term again.
type Liveness struct {
	store *store.Store
	clock clock.Clock
	log   *slog.Logger

	mu sync.Mutex
	// seen is the renewal number and when this server first saw it
	seen map[id.ID]sighting
	// read is when the numbers were last read, since when they were first read with
	// no gap until then
	read, since time.Duration
	// heard are renewals not yet written
	heard map[id.ID]int64
	// servers as last read
	servers []string
}

type sighting struct {
	seq int64
	at  time.Duration
}

// good tells whether the lease is: a node that was never heard of has none.
func (s sighting) good(now time.Duration) bool { return s.seq > 0 && now-s.at < LeaseTTL }

// NewLiveness makes a judge; Run makes it see.
func NewLiveness(s *store.Store, c clock.Clock, log *slog.Logger) *Liveness {
	return &Liveness{store: s, clock: c, log: log, seen: map[id.ID]sighting{}, heard: map[id.ID]int64{}}
}

// Heard takes a renewal from a session: this server sees its number now, and the
// others once it is written with the next batch.
func (l *Liveness) Heard(node id.ID, seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard[node] = max(l.heard[node], seq)
	if l.seen[node].seq < seq {
		l.seen[node] = sighting{seq, l.clock.Boot()}
	}
}

// Reporting tells whether a node's lease is good.
func (l *Liveness) Reporting(node id.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[node].good(l.clock.Boot())
}

// AllReporting are the nodes whose lease is good, in no order.
func (l *Liveness) AllReporting() []id.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	out := make([]id.ID, 0, len(l.seen))
	for n, s := range l.seen {
		if s.good(now) {
			out = append(out, n)
		}
	}
	return out
}

// Silent tells whether a node has surely not renewed for a whole lease: this
// server has read without a gap for that long and still does, and seq, the
// newest renewal in the database, is none that it has not seen. A node that has
// never renewed is silent.
func (l *Liveness) Silent(node id.ID, seq int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, s := l.clock.Boot(), l.seen[node]
	watched := l.read != 0 && now-l.read <= LeaseTTL/2 && l.read-l.since >= LeaseTTL
	return watched && seq <= s.seq && (s.seq == 0 || now-s.at >= LeaseTTL)
}

// Run writes and reads renewals until ctx ends.
func (l *Liveness) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.Step(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("node leases cannot be read or written; judgement is suspended", "err", err)
		}
		if l.clock.Sleep(ctx, watchEvery) != nil {
			return
		}
	}
}

// Step writes what was heard and looks once.
func (l *Liveness) Step(ctx context.Context) error {
	l.mu.Lock()
	heard := l.heard
	l.heard = map[id.ID]int64{}
	l.mu.Unlock()
	if len(heard) > 0 {
		if err := l.store.NodeBeats(ctx, heard); err != nil {
			l.putBack(heard)
			return err
		}
	}
	started := l.clock.Boot()
	leases, err := l.store.NodeLeases(ctx)
	if err != nil {
		return err
	}
	l.look(leases, started)
	servers, err := l.store.ServerAddresses(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers = servers
	return nil
}

// Servers are the addresses of the servers as last read; empty before.
func (l *Liveness) Servers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.servers
}

func (l *Liveness) putBack(heard map[id.ID]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, seq := range heard {
		l.heard[n] = max(l.heard[n], seq)
	}
}

func (l *Liveness) look(leases map[id.ID]int64, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// a gap in the reads: what looks old may only not have been looked at
	blind := l.read != 0 && now-l.read > LeaseTTL/2
	if l.read == 0 || blind {
		l.since = now
	}
	l.read = now
	for n := range l.seen {
		if _, ok := leases[n]; !ok {
			delete(l.seen, n)
		}
	}
	for n, seq := range leases {
		if s, ok := l.seen[n]; !ok || s.seq < seq || blind {
			l.seen[n] = sighting{max(seq, s.seq), now}
		}
	}
}
