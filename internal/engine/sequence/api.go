package sequence

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// ErrTooOld says that events after the asked number are no longer kept.
var ErrTooOld = errors.New("sequence: events that old are no longer kept")

// ErrAhead says that the asked number was never given: the reader speaks of
// another database, or of this one before it was restored.
var ErrAhead = errors.New("sequence: no event has that number yet")

// Latest, given to Subscribe, means from now on.
const Latest int64 = -1

// Options of a Sequencer and its Hub.
type Options struct {
	Pool  *pgxpool.Pool
	Clock clock.Clock
	Log   *slog.Logger
	// Poll guarantees progress without any wake-up; 250 ms by default.
	Poll time.Duration
	// NotifyEvery bounds wake-ups of other servers; 5 ms by default.
	NotifyEvery time.Duration
	// Window is how many of the newest events the Hub keeps in memory; 4096 by
	// default.
	Window int
}

// Sequencer numbers what was committed. Run it under the lease:
//
//	go member.Lead(ctx, sequence.Role, func(ctx context.Context, _ lease.Term) { s.Lead(ctx) })
//
// and Run on every server, for wake-ups and the Hub.
type Sequencer struct{ opts Options }

// Role is the name of the sequencer's lease.
const Role = "sequencer"

// New makes a sequencer with its hub.
func New(opts Options) *Sequencer { return &Sequencer{opts: opts} }

// Run listens for wake-ups and feeds the Hub until ctx ends.
func (s *Sequencer) Run(ctx context.Context) error { panic("sequence: not built yet") }

// Lead numbers and chains until ctx ends.
func (s *Sequencer) Lead(ctx context.Context) { panic("sequence: not built yet") }

// Nudge says that events or audit records were committed. It never blocks.
func (s *Sequencer) Nudge() {}

// Hub is where to subscribe.
func (s *Sequencer) Hub() *Hub { panic("sequence: not built yet") }

// Hub gives events to readers of this server.
type Hub struct{}

// Subscribe starts reading after the given number (0: from the first event;
// Latest: from now on). filter picks events; nil means all.
func (h *Hub) Subscribe(ctx context.Context, after int64, filter func(*event.Event) bool) (*Subscription, error) {
	panic("sequence: not built yet")
}

// Subscription is one reader's place in the order. It is not safe for
// concurrent use and needs no closing.
type Subscription struct{}

// Next waits for events and gives them in order, without gap or duplicate. It
// may give none: then only the position moved on (see Position), so that a reader with a
// narrow filter can still resume near the head. Errors: ctx's, ErrTooOld when the
// reader fell behind what is kept, errs.DBUnavailable (call Next again later).
func (s *Subscription) Next(ctx context.Context) ([]event.Event, error) {
	panic("sequence: not built yet")
}

// Position is the number up to which everything was given or filtered out.
func (s *Subscription) Position() int64 { panic("sequence: not built yet") }

// VerifyAudit walks the audit chain and gives the number of records in it; an
// error names the first record that does not fit.
func VerifyAudit(ctx context.Context, db *pgxpool.Pool) (int64, error) {
	panic("sequence: not built yet")
}
