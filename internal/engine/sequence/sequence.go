package sequence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// ErrTooOld says that events after the asked number are no longer kept.
var ErrTooOld = errors.New("sequence: events that old are no longer kept")

// ErrAhead says that the asked number was never given: the reader speaks of
// another database, or of this one before it was restored.
var ErrAhead = errors.New("sequence: no event has that number yet")

// Latest given to Subscribe means from now on.
const Latest int64 = -1

// Role is the name of the sequencer's lease.
const Role = "sequencer"

// Options of a Sequencer and its Hub.
type Options struct {
	Pool  *pgxpool.Pool
	Clock clock.Clock
	Log   *slog.Logger
	// Poll guarantees progress without any wake-up; 250 ms by default.
	Poll time.Duration
	// NotifyEvery bounds wake-ups of other servers; 5 ms by default.
	NotifyEvery time.Duration
	// ChainEvery bounds how often audit records are chained; 200 ms by default.
	ChainEvery time.Duration
	// Window is how many of the newest events the Hub keeps in memory; 4096 by
	// default.
	Window int
}

func (o Options) filled() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Poll, 250*time.Millisecond)
	def(&o.NotifyEvery, 5*time.Millisecond)
	def(&o.ChainEvery, 200*time.Millisecond)
	if o.Window == 0 {
		o.Window = 4096
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Sequencer numbers what was committed. Call Run on every server, for wake-ups
// and the Hub, and Lead under the lease:
//
//	go member.Lead(ctx, sequence.Role, func(ctx context.Context, _ lease.Term) { s.Lead(ctx) })
type Sequencer struct {
	opts Options
	hub  *Hub
	// leading is set while this server numbers
	leading atomic.Bool
	// number wakes the numbering of this server, tell asks for a NOTIFY that wakes
	// the leader, told for one that wakes the others' hubs
	number, tell, told chan struct{}
}

// New makes a sequencer with its hub.
func New(opts Options) *Sequencer {
	o := opts.filled()
	one := func() chan struct{} { return make(chan struct{}, 1) }
	return &Sequencer{opts: o, hub: newHub(o), number: one(), tell: one(), told: one()}
}

// Hub is where to subscribe.
func (s *Sequencer) Hub() *Hub { return s.hub }

// Nudge says that events or audit records were committed. It never blocks.
func (s *Sequencer) Nudge() {
	if s.leading.Load() {
		poke(s.number)
		return
	}
	poke(s.tell)
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// batch bounds one numbering statement.
const batch = 2000

// Lead numbers and chains until ctx ends.
func (s *Sequencer) Lead(ctx context.Context) {
	s.leading.Store(true)
	defer s.leading.Store(false)
	chained := s.opts.Clock.Boot() - s.opts.ChainEvery
	poke(s.number)
	for ctx.Err() == nil {
		nudged := s.await(ctx, s.number, s.opts.Poll)
		events, audit := nudged, nudged
		if !nudged {
			// nobody said anything: look before taking the lock, whose transaction is
			// written to disk
			row, err := query.New(s.opts.Pool).Unnumbered(ctx)
			if err != nil {
				s.complain(ctx, "look for what has no number", err)
				continue
			}
			events, audit = row.Events, row.Audit
		}
		if events {
			s.complain(ctx, "number events", s.numberAll(ctx))
		}
		if now := s.opts.Clock.Boot(); audit && now-chained >= s.opts.ChainEvery {
			chained = now
			s.complain(ctx, "chain the audit log", s.chainAll(ctx))
		}
	}
}

// await waits for a wake-up, at most for d, and tells whether one came.
func (s *Sequencer) await(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer, stop := s.opts.Clock.After(d)
	defer stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
		return true
	case <-timer:
		return false
	}
}

func (s *Sequencer) complain(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		s.opts.Log.Warn("the sequencer is held up", "doing", what, "error", err)
	}
}

// numberAll gives numbers until no committed event is without one.
func (s *Sequencer) numberAll(ctx context.Context) error {
	for {
		events, err := s.numberBatch(ctx)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			s.hub.publish(events)
			poke(s.told)
		}
		if len(events) < batch {
			return nil
		}
	}
}

func (s *Sequencer) numberBatch(ctx context.Context) ([]event.Event, error) {
	var out []event.Event
	err := pgtx.Run(ctx, s.opts.Pool, func(tx pgx.Tx) error {
		q := query.New(tx)
		if _, err := q.LockSequencer(ctx); err != nil {
			return fmt.Errorf("lock the sequencer: %w", err)
		}
		rows, err := q.NumberEvents(ctx, batch)
		if err != nil {
			return fmt.Errorf("number: %w", err)
		}
		out = make([]event.Event, len(rows))
		for i, r := range rows {
			out[i] = event.Event(r)
			out[i].At = r.At.UTC()
		}
		return nil
	})
	return out, err
}

// Run listens for wake-ups, passes them on and feeds the Hub until ctx ends.
func (s *Sequencer) Run(ctx context.Context) error {
	done := make(chan struct{}, 3)
	for _, f := range []func(context.Context){s.listen, s.notify, s.hub.feed} {
		go func() { f(ctx); done <- struct{}{} }()
	}
	for range 3 {
		<-done
	}
	return nil
}
