package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ErrExpired is the cause of a context that ended because this server's
// membership ran out.
var ErrExpired = errors.New("lease: this server's membership has run out")

// Member is this server among the servers.
type Member struct {
	opts Options
	id   id.ID
	pool *pgxpool.Pool // of its own, made by Run

	ready     chan struct{}
	readyOnce sync.Once

	mu    sync.Mutex
	valid validity
	// holds are ended when validity does
	holds map[*hold]struct{}
	// ticked is closed and replaced after every successful look at the beats
	ticked chan struct{}

	watch *watch
}

type hold struct{ end context.CancelCauseFunc }

// NewMember makes a member with a fresh id; Run brings it to life.
func NewMember(opts Options) *Member {
	if opts.TTL == 0 {
		opts.TTL = TTL
	}
	if opts.Forget == 0 {
		opts.Forget = 10 * time.Minute
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	m := &Member{
		opts: opts, id: id.New(), ready: make(chan struct{}),
		holds: map[*hold]struct{}{}, ticked: make(chan struct{}),
	}
	m.watch = newWatch(m.id, opts.TTL, opts.Clock.Boot, opts.ProvenDead...)
	return m
}

// ID is this server's id, new with each process.
func (m *Member) ID() id.ID { return m.id }

// Ready is closed once the first beat is in the database.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// period is how often a beat is sent and the others are looked at.
func (m *Member) period() time.Duration { return m.opts.TTL / 3 }

// Run joins, beats and watches until ctx ends, then leaves.
func (m *Member) Run(ctx context.Context) error {
	cfg := m.opts.Pool.Config().Copy()
	cfg.MaxConns, cfg.MinConns = 2, 1
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open the heart's connection: %w", err)
	}
	defer pool.Close()
	m.pool = pool
	go m.expire(ctx)
	var beat int64
	for {
		beat++
		if err := m.tick(ctx, beat); err != nil && ctx.Err() == nil {
			m.opts.Log.Warn("cannot beat", "error", err)
		}
		if m.opts.Clock.Sleep(ctx, m.period()) != nil {
			break
		}
	}
	return m.leave(ctx)
}

// tick sends one beat and looks at all others.
func (m *Member) tick(ctx context.Context, beat int64) error {
	// a request that hangs must not keep the next from being sent
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit, stop := m.opts.Clock.After(m.period())
	defer stop()
	go func() {
		select {
		case <-limit:
			cancel()
		case <-ctx.Done():
		}
	}()
	sent := m.opts.Clock.Boot()
	q := query.New(m.pool)
	err := q.Beat(ctx, query.BeatParams{ID: m.id, Address: m.opts.Address, Version: m.opts.Version, Beat: beat})
	if err != nil {
		m.watch.suspend()
		return fmt.Errorf("send a beat: %w", pgtx.Map(err))
	}
	m.extend(sent)
	rows, err := q.Beats(ctx)
	if err != nil {
		m.watch.suspend()
		return fmt.Errorf("read the beats: %w", pgtx.Map(err))
	}
	seen := make(map[id.ID]int64, len(rows))
	for _, r := range rows {
		seen[r.ID] = r.Beat
	}
	m.watch.look(seen)
	m.told()
	return m.forget(ctx, q)
}

func (m *Member) forget(ctx context.Context, q *query.Queries) error {
	old := m.watch.silent(m.opts.Forget)
	if len(old) == 0 {
		return nil
	}
	if err := q.RemoveServers(ctx, old); err != nil {
		return fmt.Errorf("remove the rows of dead servers: %w", pgtx.Map(err))
	}
	m.opts.Log.Info("removed dead servers", "servers", len(old))
	return nil
}

// leave tells the others that nothing of this server needs waiting for.
func (m *Member) leave(ctx context.Context) error {
	m.mu.Lock()
	m.valid = validity{}
	m.mu.Unlock()
	m.endHolds()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.opts.TTL)
	defer cancel()
	if err := query.New(m.pool).Leave(ctx, m.id); err != nil {
		return fmt.Errorf("leave the servers: %w", pgtx.Map(err))
	}
	return nil
}

// extend takes in a beat that has arrived.
func (m *Member) extend(sent time.Duration) {
	m.mu.Lock()
	lapsed := m.valid.extend(sent, m.opts.Clock.Boot(), m.opts.TTL)
	m.mu.Unlock()
	if lapsed {
		// what was bound before the lapse may be somebody else's by now
		m.endHolds()
	}
	m.readyOnce.Do(func() { close(m.ready) })
}

// told wakes campaigns: the judgement about others is fresh.
func (m *Member) told() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.ticked)
	m.ticked = make(chan struct{})
}

func (m *Member) nextTick() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ticked
}

// Valid tells whether this server may act: its last beat was sent less than
// 2/3 TTL ago, and it was not away shortly before.
func (m *Member) Valid() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.valid.at(m.opts.Clock.Boot())
}

// Dead tells whether the server has been silent for a whole TTL as seen by this
// server, with the database readable throughout. A server that is not in the
// table counts from the moment it is first asked for.
func (m *Member) Dead(server id.ID) bool { return m.watch.dead(server) }

// Bind gives a context that ends when ctx does or when this server stops being
// valid (cause ErrExpired). It has ended already if the server is not valid now.
func (m *Member) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	bound, end := context.WithCancelCause(ctx)
	h := &hold{end: end}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.valid.at(m.opts.Clock.Boot()) {
		end(ErrExpired)
		return bound, func() {}
	}
	m.holds[h] = struct{}{}
	return bound, func() {
		m.mu.Lock()
		delete(m.holds, h)
		m.mu.Unlock()
		end(context.Canceled)
	}
}

// expire ends the holds at the moment validity does.
func (m *Member) expire(ctx context.Context) {
	for {
		m.mu.Lock()
		left := m.valid.until - m.opts.Clock.Boot()
		m.mu.Unlock()
		if left <= 0 {
			m.endHolds()
			// until a beat succeeds there is nothing to end; looking again this soon
			// bounds how long a fresh hold may outlive a short validity
			left = m.opts.TTL / 60
		}
		if m.opts.Clock.Sleep(ctx, left) != nil {
			return
		}
	}
}

func (m *Member) endHolds() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.holds) > 0 {
		m.opts.Log.Warn("this server's membership has run out: its work is dropped")
	}
	for h := range m.holds {
		h.end(ErrExpired)
	}
	m.holds = map[*hold]struct{}{}
}
