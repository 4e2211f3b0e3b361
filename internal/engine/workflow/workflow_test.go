package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/lease"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// members is a membership that the test decides about.
type members struct {
	id     id.ID
	mu     sync.Mutex
	dead   map[id.ID]bool
	ctx    context.Context
	expire context.CancelCauseFunc
}

func newMembers() *members {
	m := &members{id: id.New(), dead: map[id.ID]bool{}}
	m.ctx, m.expire = context.WithCancelCause(context.Background())
	return m
}

func (m *members) ID() id.ID { return m.id }

func (m *members) Dead(s id.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead[s]
}

func (m *members) bury(s id.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead[s] = true
}

func (m *members) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	bound, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.ctx, func() { end(context.Cause(m.ctx)) })
	if m.ctx.Err() != nil {
		end(context.Cause(m.ctx))
	}
	return bound, func() { stop(); end(context.Canceled) }
}

// bench is a database, the steps' record, and executors on it.
type bench struct {
	t   *testing.T
	db  *storetest.DB
	ctx context.Context

	mu  sync.Mutex
	log []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return &bench{t: t, db: storetest.New(t), ctx: ctx}
}

func (b *bench) notef(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, fmt.Sprintf(format, args...))
}

func (b *bench) notes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.log...)
}

type run = workflow.Run[*bench]

// step notes its do and undo; do may add to it.
func step(name string, do func(ctx context.Context, r *run) (any, error)) workflow.Step[*bench] {
	return workflow.Step[*bench]{
		Name: name,
		Do: func(ctx context.Context, r *run) (any, error) {
			r.Env.notef("%s", r.Step)
			if do != nil {
				return do(ctx, r)
			}
			return name, nil
		},
		Undo: func(_ context.Context, r *run) error { r.Env.notef("%s", r.Step); return nil },
	}
}

func flow(steps ...workflow.Step[*bench]) workflow.Flow[*bench] {
	return workflow.Flow[*bench]{
		Name: "test", Steps: steps,
		Finish: func(_ context.Context, _ pgx.Tx, r *run, out workflow.Outcome) error {
			r.Env.notef("finish %s", out.State)
			return nil
		},
	}
}

func fast(int) time.Duration { return time.Millisecond }

type server struct {
	*workflow.Executor
	members *members
	stop    context.CancelFunc
	done    chan error
}

// serve starts an executor.
func (b *bench) serve(f workflow.Flow[*bench], set func(*workflow.Options)) *server {
	b.t.Helper()
	s := &server{members: newMembers(), done: make(chan error, 1)}
	o := workflow.Options{
		Pool: b.db.App, Members: s.members, Clock: clock.System{}, Flows: []workflow.Bound{workflow.Bind(f, b)},
		Poll: 50 * time.Millisecond, Backoff: fast,
	}
	if set != nil {
		set(&o)
	}
	s.Executor = workflow.New(o)
	ctx, cancel := context.WithCancel(b.ctx)
	s.stop = cancel
	stopped := make(chan struct{})
	go func() { s.done <- s.Run(ctx); close(stopped) }()
	b.t.Cleanup(func() { cancel(); <-stopped })
	return s
}

func (b *bench) tx(fn func(tx pgx.Tx) error) {
	b.t.Helper()
	if err := pgtx.Run(b.ctx, b.db.App, fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) enqueue(kind string, cancellable bool, params any) id.ID {
	b.t.Helper()
	j := workflow.NewJob{ID: id.New(), Kind: kind, Target: workflow.Target{Kind: "thing", ID: id.New(), Name: "x"}, Params: params, CreatedBy: "test", Cancellable: cancellable}
	b.tx(func(tx pgx.Tx) error { return workflow.Enqueue(b.ctx, tx, j) })
	return j.ID
}

type row struct {
	State        job.State
	Error        *string
	Code         *string
	WaitReason   string
	Cancellable  bool
	Progress     int
	Fence        int64
	Holder       *id.ID
	UnwindReason *string
}

func (b *bench) job(j id.ID) row {
	b.t.Helper()
	rows, err := b.db.App.Query(b.ctx, `SELECT state, error_message, error_code, wait_reason, cancellable, progress, fence, holder, unwind_message FROM jobs WHERE id = $1`, j)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[row])
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// until waits for a job to be as wanted.
func (b *bench) until(j id.ID, what string, ok func(row) bool) row {
	b.t.Helper()
	for {
		r := b.job(j)
		if ok(r) {
			return r
		}
		if (clock.System{}).Sleep(b.ctx, 3*time.Millisecond) != nil {
			b.t.Fatalf("job is never %s: %+v; %v", what, r, b.notes())
		}
	}
}

func (b *bench) ends(j id.ID, want job.State) row {
	b.t.Helper()
	r := b.until(j, "ended", func(r row) bool { return r.State.Ended() })
	if r.State != want {
		b.t.Fatalf("job is %s (%v), want %s; %v", r.State, deref(r.Error), want, b.notes())
	}
	return r
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (b *bench) expect(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.notes()); diff != "" {
		b.t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestSucceeds(t *testing.T) {
	b := newBench(t)
	type params struct{ N int }
	f := flow(
		step("one", func(_ context.Context, r *run) (any, error) {
			var p params
			err := r.Params(&p)
			return p.N + 1, err
		}),
		step("two", func(ctx context.Context, r *run) (any, error) {
			n, err := workflow.MustOutput[int](r, "one")
			if err != nil || n != 42 {
				return nil, fmt.Errorf("output %d, %w", n, err)
			}
			_, ok, err := workflow.Output[int](r, "three")
			if ok || err != nil {
				return nil, fmt.Errorf("output of a step to come: %v, %w", ok, err)
			}
			return nil, r.Progress(ctx, 50)
		}),
		step("three", nil),
	)
	s := b.serve(f, nil)
	j := b.enqueue("test", false, params{N: 41})
	s.Nudge()
	r := b.ends(j, job.Succeeded)
	b.expect("one", "two", "three", "finish succeeded")
	if r.Progress != 100 || r.Holder != nil || r.Fence != 1 {
		t.Errorf("%+v", r)
	}
	var events []string
	rows, err := b.db.App.Query(b.ctx, `SELECT concat_ws(' ', data->>'state', data->>'progress', data->>'step') FROM events WHERE kind = 'job.updated' AND job_id = $1 ORDER BY id`, j)
	if err != nil {
		t.Fatal(err)
	}
	if events, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	want := []string{"queued 0 ", "running 0 ", "running 33 two", "running 50 two", "running 66 three", "succeeded 100 "}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestFailureUnwinds(t *testing.T) {
	b := newBench(t)
	f := flow(step("one", nil), step("two", nil), step("three", func(context.Context, *run) (any, error) {
		return nil, errs.New(errs.NoSpace, "the disk is full")
	}), step("four", nil))
	s := b.serve(f, nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	r := b.ends(j, job.Failed)
	b.expect("one", "two", "three", "three/undo", "two/undo", "one/undo", "finish failed")
	if deref(r.Code) != "no_space" || deref(r.Error) != "the disk is full" {
		t.Errorf("%s %s", deref(r.Code), deref(r.Error))
	}
	var steps []string
	rows, err := b.db.App.Query(b.ctx, `SELECT concat_ws(' ', name, state, error_code) FROM job_steps WHERE job_id = $1 ORDER BY position`, j)
	if err != nil {
		t.Fatal(err)
	}
	if steps, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one undone", "two undone", "three undone no_space"}, steps); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

func TestPanicIsAFailure(t *testing.T) {
	b := newBench(t)
	s := b.serve(flow(step("one", func(context.Context, *run) (any, error) { panic("oops") })), nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	if r := b.ends(j, job.Failed); deref(r.Code) != "internal" {
		t.Errorf("%+v", r)
	}
}

func TestRetryableFailures(t *testing.T) {
	b := newBench(t)
	var tries int
	flaky := func(n int) func(context.Context, *run) (any, error) {
		return func(context.Context, *run) (any, error) {
			if tries++; tries <= n {
				return nil, errs.New(errs.NodeUnreachable, "node a does not answer")
			}
			return nil, nil
		}
	}
	s := b.serve(flow(step("one", flaky(4))), nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	if r := b.ends(j, job.Succeeded); tries != 5 || r.Fence != 5 {
		t.Errorf("%d tries, fence %d", tries, r.Fence)
	}

	// not for ever
	b2 := newBench(t)
	tries = 0
	s = b2.serve(flow(step("zero", nil), step("one", flaky(1000))), func(o *workflow.Options) { o.MaxFailures = 4 })
	j = b2.enqueue("test", false, nil)
	s.Nudge()
	if r := b2.ends(j, job.Failed); tries != 4 || deref(r.Code) != "node_unreachable" {
		t.Errorf("%d tries, %+v", tries, r)
	}
	b2.expect("zero", "one", "one", "one", "one", "one/undo", "zero/undo", "finish failed")
}

func TestNoReturn(t *testing.T) {
	b := newBench(t)
	broken := true
	last := workflow.Step[*bench]{Name: "last", Do: func(context.Context, *run) (any, error) {
		if b.notef("last"); broken {
			return nil, errs.New(errs.HostFailure, "it broke")
		}
		return nil, nil
	}}
	commit := workflow.Step[*bench]{Name: "commit", NoReturn: true, Do: func(context.Context, *run) (any, error) { b.notef("commit"); return nil, nil }}
	s := b.serve(flow(step("one", nil), commit, last), func(o *workflow.Options) { o.MaxFailuresAfter = 3 })
	j := b.enqueue("test", false, nil)
	s.Nudge()
	r := b.ends(j, job.NeedsAttention)
	b.expect("one", "commit", "last", "last", "last")
	if deref(r.Code) != "needs_attention" || r.Holder != nil {
		t.Errorf("%+v", r)
	}
	broken = false
	b.tx(func(tx pgx.Tx) error { return workflow.Retry(b.ctx, tx, j) })
	s.Nudge()
	if r := b.ends(j, job.Succeeded); r.Error != nil {
		t.Errorf("%+v", r)
	}
	b.expect("one", "commit", "last", "last", "last", "last", "finish succeeded")
	if err := pgtx.Run(b.ctx, b.db.App, func(tx pgx.Tx) error { return workflow.Retry(b.ctx, tx, j) }); !errs.Is(err, errs.InvalidState) {
		t.Errorf("retrying an ended job: %v", err)
	}
}

func TestUndoErrors(t *testing.T) {
	b := newBench(t)
	var tries int
	undo := error(errs.New(errs.Timeout, "slow"))
	one := step("one", nil)
	one.Undo = func(_ context.Context, r *run) error {
		r.Env.notef("%s", r.Step)
		tries++
		if tries == 3 {
			undo = errs.New(errs.HostFailure, "the file cannot be removed")
		}
		return undo
	}
	s := b.serve(flow(step("zero", nil), one, step("two", func(context.Context, *run) (any, error) {
		return nil, errs.New(errs.GuestFailure, "the guest died")
	})), nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	r := b.ends(j, job.NeedsAttention)
	want := "step one could not be undone: the file cannot be removed; still to undo: one, zero; it unwinds because: the guest died"
	if deref(r.Error) != want {
		t.Errorf("says %q", deref(r.Error))
	}
	undo = nil
	b.tx(func(tx pgx.Tx) error { return workflow.Retry(b.ctx, tx, j) })
	s.Nudge()
	if r := b.ends(j, job.Failed); deref(r.Code) != "guest_failure" || deref(r.Error) != "the guest died" {
		t.Errorf("%+v", r)
	}
	b.expect("zero", "one", "two", "two/undo", "one/undo", "one/undo", "one/undo", "one/undo", "zero/undo", "finish failed")
}

func TestWaitAndWake(t *testing.T) {
	b := newBench(t)
	ready := make(chan struct{})
	s := b.serve(flow(step("one", func(context.Context, *run) (any, error) {
		select {
		case <-ready:
			return nil, nil
		default:
			return nil, workflow.Wait("for a node", time.Hour)
		}
	})), nil)
	j := b.enqueue("test", true, nil)
	s.Nudge()
	r := b.until(j, "waiting", func(r row) bool { return r.State == job.Waiting })
	if r.WaitReason != "for a node" || r.Holder != nil {
		t.Errorf("%+v", r)
	}
	close(ready)
	if n, err := workflow.Wake(b.ctx, b.db.App, workflow.Filter{Kind: "other"}); n != 0 || err != nil {
		t.Errorf("woke %d, %v", n, err)
	}
	if n, err := workflow.Wake(b.ctx, b.db.App, workflow.Filter{TargetKind: "thing", Reason: "for a node"}); n != 1 || err != nil {
		t.Errorf("woke %d, %v", n, err)
	}
	s.Nudge()
	b.ends(j, job.Succeeded)
}

// The database's clock is put back a year while a job waits for seconds: moving when it
// is due a year ahead is the same. It is due now, and not in a year.
func TestClockPutBack(t *testing.T) {
	b := newBench(t)
	looked := 0
	s := b.serve(flow(step("one", func(context.Context, *run) (any, error) {
		if looked++; looked > 1 {
			return nil, nil
		}
		return nil, workflow.Wait("for a node", time.Hour)
	})), nil)
	j := b.enqueue("test", true, nil)
	s.Nudge()
	b.until(j, "waiting", func(r row) bool { return r.State == job.Waiting })
	tag, err := b.db.App.Exec(b.ctx, "UPDATE jobs SET wake_at = wake_at + interval '1 year' WHERE id = $1 AND wake_at BETWEEN now() AND now() + interval '61 s'", j)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("it waits for longer than a minute: %v %v", tag, err)
	}
	s.Nudge()
	b.ends(j, job.Succeeded)
}

// A wake that comes after the step looked and before it parked is not lost.
func TestWakeIsNotLost(t *testing.T) {
	b := newBench(t)
	looked := 0
	s := b.serve(flow(step("one", func(ctx context.Context, r *run) (any, error) {
		if looked++; looked > 1 {
			return nil, nil
		}
		if n, err := workflow.Wake(ctx, b.db.App, workflow.Filter{Jobs: []id.ID{r.Job.ID}}); n != 1 || err != nil {
			return nil, fmt.Errorf("woke %d, %w", n, err)
		}
		return nil, workflow.Wait("for a node", time.Hour)
	})), nil)
	j := b.enqueue("test", true, nil)
	s.Nudge()
	b.ends(j, job.Succeeded)
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	began := make(chan struct{}, 10)
	hang := func(ctx context.Context, _ *run) (any, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	two := step("two", hang)
	two.Cancellable = true
	s := b.serve(flow(step("one", nil), two, step("three", nil)), nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	<-began
	if !b.job(j).Cancellable {
		t.Error("not shown as cancellable")
	}
	for range 2 {
		b.tx(func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, j) })
	}
	s.Nudge()
	b.ends(j, job.Cancelled)
	b.expect("one", "two", "two/undo", "one/undo", "finish cancelled")
	b.tx(func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, j) })
	if err := pgtx.Run(b.ctx, b.db.App, func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, id.New()) }); !errs.Is(err, errs.NotFound) {
		t.Errorf("cancel of nothing: %v", err)
	}
}

func TestCancelRefused(t *testing.T) {
	b := newBench(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	s := b.serve(flow(step("one", func(context.Context, *run) (any, error) { close(began); <-goOn; return nil, nil })), nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	<-began
	if err := pgtx.Run(b.ctx, b.db.App, func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, j) }); !errs.Is(err, errs.NotCancellable) {
		t.Errorf("got %v", err)
	}
	close(goOn)
	b.ends(j, job.Succeeded)
}

// Cancelled before anybody began, and while parked.
func TestCancelQueuedAndWaiting(t *testing.T) {
	b := newBench(t)
	one := step("one", func(context.Context, *run) (any, error) { return nil, workflow.Wait("for ever", time.Hour) })
	one.Cancellable = true
	f := flow(one)
	queued := b.enqueue("test", f.FirstCancellable(), nil)
	b.tx(func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, queued) })
	s := b.serve(f, nil)
	b.ends(queued, job.Cancelled)
	b.expect("finish cancelled")
	j := b.enqueue("test", true, nil)
	s.Nudge()
	b.until(j, "waiting", func(r row) bool { return r.State == job.Waiting })
	b.tx(func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, j) })
	s.Nudge()
	b.ends(j, job.Cancelled)
	b.expect("finish cancelled", "one", "one/undo", "finish cancelled")
}

// Rows nobody can make sense of do not stand in the way of others.
func TestStrangersDoNotStall(t *testing.T) {
	b := newBench(t)
	f := flow(step("one", func(_ context.Context, r *run) (any, error) {
		var n int
		return nil, r.Params(&n)
	}))
	unknown := b.enqueue("from.the.future", false, 1)
	unreadable := b.enqueue("test", false, "no number")
	misfit := b.enqueue("test", false, 1)
	if _, err := b.db.App.Exec(b.ctx, "INSERT INTO job_steps (job_id, position, name, state) VALUES ($1, 0, 'other', 'done')", misfit); err != nil {
		t.Fatal(err)
	}
	if _, err := b.db.App.Exec(b.ctx, "UPDATE jobs SET fence = 1 WHERE id = $1", misfit); err != nil {
		t.Fatal(err)
	}
	good := b.enqueue("test", false, 1)
	b.serve(f, nil)
	b.ends(good, job.Succeeded)
	b.ends(unreadable, job.Failed)
	b.ends(misfit, job.NeedsAttention)
	if r := b.job(unknown); r.State != job.Queued {
		t.Errorf("%+v", r)
	}
}

func TestFinishFails(t *testing.T) {
	b := newBench(t)
	f := flow(step("one", nil))
	tries := 0
	f.Finish = func(context.Context, pgx.Tx, *run, workflow.Outcome) error {
		if tries++; tries < 3 {
			return errors.New("no")
		}
		return nil
	}
	s := b.serve(f, nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	b.ends(j, job.Succeeded)
	b.expect("one")
}

// A clean stop gives the job to others at once, and another server finishes.
func TestStopReleases(t *testing.T) {
	b := newBench(t)
	began := make(chan struct{}, 1)
	hang := true
	f := flow(step("one", nil), step("two", func(ctx context.Context, _ *run) (any, error) {
		if hang {
			began <- struct{}{}
			<-ctx.Done()
			return nil, errs.New(errs.NodeUnreachable, "gone with the context")
		}
		return nil, nil
	}))
	s := b.serve(f, nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	<-began
	s.stop()
	s.members.expire(lease.ErrExpired) // its membership ends at about the same time
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	// one that it was just making when its membership ended may have committed
	// unheard: that is for its death, which frees it
	if r := b.job(j); r.Fence == 1 && r.Holder != nil || r.State != job.Running {
		t.Errorf("%+v", r)
	}
	hang = false
	b.serve(f, func(o *workflow.Options) { o.Members.(*members).bury(s.members.id) })
	b.ends(j, job.Succeeded)
	b.expect("one", "two", "two", "finish succeeded")
}

// A server that is frozen in the middle of a step and thaws after its claim was
// taken over changes nothing any more.
func TestFrozenExecutor(t *testing.T) {
	b := newBench(t)
	began, thaw, late := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	first := true
	var mu sync.Mutex
	f := flow(step("one", func(ctx context.Context, r *run) (any, error) {
		mu.Lock()
		frozen := first
		first = false
		mu.Unlock()
		if frozen {
			close(began)
			<-thaw
			late <- r.InTx(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "UPDATE jobs SET target_name = 'late'")
				return err
			})
			return "late", nil
		}
		return "in time", nil
	}), step("two", func(_ context.Context, r *run) (any, error) {
		out, err := workflow.MustOutput[string](r, "one")
		b.notef("%s", out)
		return nil, err
	}))
	frozen := b.serve(f, nil)
	j := b.enqueue("test", false, nil)
	frozen.Nudge()
	<-began
	other := b.serve(f, func(o *workflow.Options) { o.Members.(*members).bury(frozen.members.id) })
	_ = other
	r := b.ends(j, job.Succeeded)
	if r.Fence != 2 {
		t.Errorf("fence %d", r.Fence)
	}
	close(thaw)
	if err := <-late; !errors.Is(err, workflow.ErrClaimLost) {
		t.Errorf("the late write: %v", err)
	}
	frozen.stop()
	if err := <-frozen.done; err != nil {
		t.Error(err)
	}
	b.expect("one", "one", "two", "in time", "finish succeeded")
	var name string
	if err := b.db.App.QueryRow(b.ctx, "SELECT target_name FROM jobs WHERE id = $1", j).Scan(&name); err != nil || name != "x" {
		t.Errorf("the target is now %q, %v", name, err)
	}
}

// A server whose membership runs out ends its steps without a write, and takes
// the job again when it is back and nobody else did.
func TestMembershipRunsOut(t *testing.T) {
	b := newBench(t)
	began := make(chan struct{}, 2)
	var tries int
	s := b.serve(flow(step("one", func(ctx context.Context, _ *run) (any, error) {
		if tries++; tries > 1 {
			return nil, nil
		}
		began <- struct{}{}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), lease.ErrExpired) {
			b.t.Errorf("cause %v", context.Cause(ctx))
		}
		return nil, ctx.Err()
	})), nil)
	j := b.enqueue("test", false, nil)
	s.Nudge()
	<-began
	s.members.expire(lease.ErrExpired)
	b.until(j, "still held", func(r row) bool { return r.Holder != nil && *r.Holder == s.members.id })
	// another server knows it for dead
	other := newMembers()
	other.bury(s.members.id)
	b.serve(flow(step("one", nil)), func(o *workflow.Options) { o.Members = other })
	if r := b.ends(j, job.Succeeded); r.Fence != 2 {
		t.Errorf("fence %d", r.Fence)
	}
}
