package sequence

import (
	"context"
	"fmt"
	"sync"

	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
)

// Hub gives events to readers of this server.
type Hub struct {
	opts Options
	// wake says that there may be newer events in the database
	wake chan struct{}

	mu sync.RWMutex
	// window holds the newest events, without a gap; head is the number of the
	// last one (or of the last one skipped, when it is empty)
	window []event.Event
	head   int64
	// changed is closed and replaced when head moves
	changed chan struct{}
	// waiting counts readers who wait: without any, nothing is read, and rested
	// tells that something was not
	waiting int
	rested  bool
}

func newHub(o Options) *Hub {
	return &Hub{opts: o, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// publish takes in events of this server's own numbering. Events that do not
// follow on what is known are left to the feed.
func (h *Hub) publish(events []event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if events[0].Seq != h.head+1 {
		poke(h.wake)
		return
	}
	h.append(events)
}

// append is publish under the lock. Readers take slices of the window, so what
// is in it is never overwritten: it is cut at the front by copying.
func (h *Hub) append(events []event.Event) {
	most := h.opts.Window
	if len(h.window)+len(events) > 2*most {
		keep := min(most, len(h.window))
		h.window = append(make([]event.Event, 0, 2*most+len(events)), h.window[len(h.window)-keep:]...)
	}
	h.window = append(h.window, events...)
	h.head = events[len(events)-1].Seq
	h.move()
}

func (h *Hub) move() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// skipTo forgets the window: the head is set without knowing what lies before.
func (h *Hub) skipTo(head int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.window, h.head = nil, head
	h.move()
}

// feed reads what others numbered until ctx ends.
func (h *Hub) feed(ctx context.Context) {
	s := &Sequencer{opts: h.opts}
	for ctx.Err() == nil {
		if s.await(ctx, h.wake, h.opts.Poll); ctx.Err() != nil {
			return
		}
		if h.idle() {
			continue
		}
		s.complain(ctx, "read events", h.catchUp(ctx))
	}
}

func (h *Hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rested = h.waiting == 0
	return h.rested
}

// catchUp brings the window to the newest event.
func (h *Hub) catchUp(ctx context.Context) error {
	q := query.New(h.opts.Pool)
	newest, err := q.NewestEvent(ctx)
	if err != nil {
		return pgtx.Map(err)
	}
	h.mu.RLock()
	head := h.head
	h.mu.RUnlock()
	if newest < head || newest > head+int64(h.opts.Window) {
		// a database restored from a backup, or nobody asked for long: readers go
		// by their own numbers
		h.skipTo(newest)
		return nil
	}
	for head < newest {
		rows, err := readAfter(ctx, q, head, h.opts.Window)
		if err != nil {
			return err
		}
		if len(rows) == 0 || rows[0].Seq != head+1 {
			h.skipTo(newest)
			return nil
		}
		h.publish(rows)
		head = rows[len(rows)-1].Seq
	}
	return nil
}

func readAfter(ctx context.Context, q *query.Queries, after int64, most int) ([]event.Event, error) {
	rows, err := q.EventsAfter(ctx, query.EventsAfterParams{After: after, Most: int32(most)})
	if err != nil {
		return nil, pgtx.Map(err)
	}
	out := make([]event.Event, len(rows))
	for i, r := range rows {
		out[i] = event.Event(r)
		out[i].At = r.At.UTC()
	}
	return out, nil
}

// Subscribe starts reading after the given number (0: from the first event;
// Latest: from now on). filter picks events; nil means all. Errors: ErrTooOld,
// ErrAhead, errs.DBUnavailable.
func (h *Hub) Subscribe(ctx context.Context, after int64, filter func(*event.Event) bool) (*Subscription, error) {
	r, err := query.New(h.opts.Pool).EventRange(ctx)
	if err != nil {
		return nil, fmt.Errorf("read which events are kept: %w", pgtx.Map(err))
	}
	switch {
	case after == Latest:
		after = r.Newest
	case after > r.Newest:
		return nil, ErrAhead
	case after < r.Oldest-1:
		return nil, ErrTooOld
	}
	return &Subscription{hub: h, pos: after, filter: filter}, nil
}

// Subscription is one reader's place in the order. It is not safe for
// concurrent use and needs no closing.
type Subscription struct {
	hub    *Hub
	pos    int64
	filter func(*event.Event) bool
}

// most events of one Next.
const most = 512

// Position is the number up to which everything was given or filtered out.
func (s *Subscription) Position() int64 { return s.pos }

// Next waits for events and gives them in order, without gap or duplicate. It
// may give none: then only the position moved on (see Position), so that a
// reader with a narrow filter can still resume near the head. Errors: ctx's,
// ErrTooOld when the reader fell behind what is kept, ErrAhead when the database
// was replaced by an older one, errs.DBUnavailable (call Next again later).
func (s *Subscription) Next(ctx context.Context) ([]event.Event, error) {
	for {
		events, changed, behind := s.look()
		switch {
		case behind:
			var err error
			if events, err = s.fromDatabase(ctx); err != nil {
				return nil, err
			}
		case changed != nil:
			if err := s.wait(ctx, changed); err != nil {
				return nil, err
			}
			continue
		}
		if len(events) == 0 {
			continue
		}
		s.pos = events[len(events)-1].Seq
		return s.picked(events), nil
	}
}

// look takes what the window has. changed is given when there is nothing newer;
// behind says that the window begins later than this reader's place.
func (s *Subscription) look() (events []event.Event, changed <-chan struct{}, behind bool) {
	h := s.hub
	h.mu.RLock()
	defer h.mu.RUnlock()
	ahead := h.head - s.pos
	switch {
	case ahead <= 0:
		return nil, h.changed, false
	case ahead > int64(len(h.window)):
		return nil, nil, true
	}
	events = h.window[int64(len(h.window))-ahead:]
	return events[:min(len(events), most)], nil, false
}

// wait sleeps until the head moves.
func (s *Subscription) wait(ctx context.Context, changed <-chan struct{}) error {
	h := s.hub
	h.mu.Lock()
	h.waiting++
	if h.rested {
		poke(h.wake)
	}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.waiting--
		h.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	}
	h.mu.RLock()
	backwards := h.head < s.pos && len(h.window) == 0
	h.mu.RUnlock()
	if !backwards {
		return nil
	}
	// the feed may just have read an older number than Subscribe did
	newest, err := query.New(h.opts.Pool).NewestEvent(ctx)
	if err == nil && newest < s.pos {
		return ErrAhead
	}
	return pgtx.Map(err)
}

// fromDatabase reads what the window no longer has.
func (s *Subscription) fromDatabase(ctx context.Context) ([]event.Event, error) {
	events, err := readAfter(ctx, query.New(s.hub.opts.Pool), s.pos, most)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Seq != s.pos+1 {
		return nil, ErrTooOld
	}
	return events, nil
}

// picked copies what the filter lets through: the window is not the caller's.
func (s *Subscription) picked(events []event.Event) []event.Event {
	out := make([]event.Event, 0, len(events))
	for i := range events {
		if s.filter == nil || s.filter(&events[i]) {
			out = append(out, events[i])
		}
	}
	return out
}
