package workflow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Membership is what an executor asks of the servers' membership: lease.Member,
// or a fake in proofs.
type Membership interface {
	// ID is this server's id.
	ID() id.ID
	// Dead tells whether another server's claims may be taken over.
	Dead(server id.ID) bool
	// Bind gives a context that ends when this server may no longer act.
	Bind(ctx context.Context) (context.Context, context.CancelFunc)
}

// Options of an Executor.
type Options struct {
	Pool    *pgxpool.Pool
	Members Membership
	Clock   clock.Clock
	Log     *slog.Logger
	Flows   []Bound
	// Workers bounds how many jobs run at once; 256 by default. Four times as many
	// that were born here (Accept) may wait for their turn.
	Workers int
	// Poll is how often the database is asked for work without a nudge; 1 s by
	// default, with jitter.
	Poll time.Duration
	// Backoff between failures of a step; DefaultBackoff by default.
	Backoff Backoff
	// MaxFailures of one step in a row, worth retrying, before the job unwinds; 10 by
	// default (about 30 s with DefaultBackoff).
	MaxFailures int
	// MaxFailuresAfter is the same at and after the point of no return, where the
	// job then stops as needs_attention; 10 by default.
	MaxFailuresAfter int
	// Committed is called after each commit that inserted events: the sequencer's
	// nudge. May be nil.
	Committed func()
	// Fault injects faults, for tests; nil otherwise.
	Fault func(Point) error
	// Twice runs every Do and Undo twice, for tests.
	Twice bool
}

func (o Options) filled() Options {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&o.Workers, 256)
	def(&o.MaxFailures, 10)
	def(&o.MaxFailuresAfter, 10)
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.Backoff == nil {
		o.Backoff = DefaultBackoff
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Committed == nil {
		o.Committed = func() {}
	}
	return o
}

// Executor drives jobs. Make one per server with New.
type Executor struct {
	opts  Options
	flows map[string]*Bound
	kinds []string
	nudge chan struct{}
	// replan says that due has changed
	replan chan struct{}
	// killed is closed by a test's ErrKilled: from then on nothing is written
	killed   chan struct{}
	killOnce sync.Once
	wg       sync.WaitGroup

	// ready is closed once Run has begun
	ready chan struct{}
	// slots are held by the jobs that run
	slots chan struct{}

	mu     sync.Mutex
	active map[id.ID]*claim
	// born is how many of active were accepted here: they do not keep others from
	// being claimed
	born int
	// due holds when jobs parked by this executor want to be looked at, on the
	// clock's Boot: the poll alone would make short pauses a second long
	due []time.Duration

	ends ends

	// root is the context of what is driven, nil before Run; stopped says that
	// nothing begins any more
	root    context.Context
	stopped bool

	// life is Run's own context: it has ended when the server stops, before any
	// context that follows from that
	life context.Context

	// of the claiming goroutine alone
	holders []id.ID
	sick    bool
	pollAt  time.Duration // on the clock's Boot
}

// errStopping is the cause of contexts that end with the executor.
var errStopping = errors.New("workflow: the executor stops")

// patience is how long a clean stop waits for steps to heed their context.
const patience = 15 * time.Second

// New makes an executor.
func New(opts Options) *Executor {
	e := &Executor{
		opts: opts.filled(), flows: map[string]*Bound{}, nudge: make(chan struct{}, 1), replan: make(chan struct{}, 1),
		killed: make(chan struct{}), ready: make(chan struct{}), active: map[id.ID]*claim{},
	}
	e.slots = make(chan struct{}, e.opts.Workers)
	for _, f := range opts.Flows {
		if e.flows[f.name] != nil {
			panic("workflow: two flows are named " + f.name)
		}
		e.flows[f.name] = &f
		e.kinds = append(e.kinds, f.name)
	}
	return e
}

// Run claims and drives jobs until ctx ends; then it stops the steps under way
// and releases their claims, so that another server goes on at once.
func (e *Executor) Run(ctx context.Context) error {
	e.life = ctx
	root, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(errStopping)
	e.mu.Lock()
	e.root = root
	e.mu.Unlock()
	close(e.ready)
	for {
		polled, more := e.wait(ctx)
		if !more {
			break
		}
		e.round(root, polled)
	}
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	if e.isKilled() {
		end(ErrKilled)
		e.wg.Wait()
		return ErrKilled
	}
	end(errStopping)
	return e.drain()
}

// Ready is closed once Run has begun: from then on Accept takes jobs on.
func (e *Executor) Ready() <-chan struct{} { return e.ready }

// wait sleeps until there may be work: nudged, a parked job due, or polled.
func (e *Executor) wait(ctx context.Context) (polled, more bool) {
	for {
		pause := max(e.pollAt-e.opts.Clock.Boot(), 0)
		if d, ok := e.nextDue(); ok {
			pause = min(pause, d)
		}
		timer, stop := e.opts.Clock.After(pause)
		select {
		case <-e.killed:
			stop()
			return false, false
		case <-ctx.Done():
			stop()
			return false, false
		case <-e.replan:
			stop()
			continue
		case <-e.nudge:
			stop()
		case <-timer:
		}
		if e.opts.Clock.Boot() < e.pollAt {
			return false, !e.isKilled()
		}
		e.pollAt = e.opts.Clock.Boot() + e.opts.Poll*8/10 + rand.N(e.opts.Poll*4/10) //nolint:gosec // jitter
		return true, !e.isKilled()
	}
}

// drain waits for the workers, who release their claims.
func (e *Executor) drain() error {
	done := make(chan struct{})
	go func() { e.wg.Wait(); close(done) }()
	late, stop := e.opts.Clock.After(patience)
	defer stop()
	select {
	case <-done:
		return nil
	case <-late:
		e.mu.Lock()
		defer e.mu.Unlock()
		return fmt.Errorf("workflow: %d steps did not stop within %v", len(e.active), patience)
	}
}

// Nudge makes the executor look for work now: call it after a commit that
// enqueued, cancelled, retried or woke a job. It never blocks.
func (e *Executor) Nudge() { poke(e.nudge) }

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (e *Executor) isKilled() bool {
	select {
	case <-e.killed:
		return true
	default:
		return false
	}
}

func (e *Executor) kill() { e.killOnce.Do(func() { close(e.killed) }) }

// maxDue bounds the memory of parked jobs; the poll finds the others.
const maxDue = 4096

func (e *Executor) parkedFor(d time.Duration) {
	if d > e.opts.Poll {
		return // the poll is soon enough
	}
	e.mu.Lock()
	if len(e.due) < maxDue {
		// a little late rather than a little early: the database's clock decides
		e.due = append(e.due, e.opts.Clock.Boot()+d+time.Millisecond)
	}
	e.mu.Unlock()
	poke(e.replan)
}

// nextDue gives how long until a parked job is due and forgets those that are.
func (e *Executor) nextDue() (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, next, found := e.opts.Clock.Boot(), time.Duration(0), false
	rest := e.due[:0]
	for _, at := range e.due {
		left := max(at-now, 0)
		if !found || left < next {
			next, found = left, true
		}
		if at > now {
			rest = append(rest, at)
		}
	}
	e.due = rest
	return next, found
}
