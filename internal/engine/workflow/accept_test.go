package workflow_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// head is a step that is all in the database; it notes whether it ran in the
// transaction that accepts its job.
func head(name string, do func(ctx context.Context, r *run) (any, error)) workflow.Step[*bench] {
	s := step(name, nil)
	s.InDatabase, s.Cancellable = true, true
	s.Do = func(ctx context.Context, r *run) (any, error) {
		where := "later"
		if r.Accepting() != nil {
			where = "accepting"
		}
		r.Env.notef("%s %s", r.Step, where)
		err := r.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO events (kind, object_kind, object_id, object_name) VALUES ('head', 'thing', $1, $2)", r.Job.Target.ID, name)
			return err
		})
		if err == nil && do != nil {
			return do(ctx, r)
		}
		return name, err
	}
	return s
}

// accept hands a job to an executor and ends the transaction.
func (b *bench) accept(s *server, seen any, end error) (id.ID, *workflow.Birth) {
	b.t.Helper()
	<-s.Ready()
	j := workflow.NewJob{ID: id.New(), Kind: "test", Target: workflow.Target{Kind: "thing", ID: id.New(), Name: "x"}, CreatedBy: "test", Seen: seen, Cancellable: true}
	var birth *workflow.Birth
	err := pgtx.Run(b.ctx, b.db.App, func(tx pgx.Tx) (err error) {
		birth, err = s.Accept(b.ctx, tx, j)
		return errors.Join(err, end)
	})
	if !errors.Is(err, end) {
		b.t.Fatal(err)
	}
	return j.ID, birth
}

// heads counts what head steps wrote and committed.
func (b *bench) heads() (n int) {
	b.t.Helper()
	if err := b.db.App.QueryRow(b.ctx, "SELECT count(*) FROM events WHERE kind = 'head'").Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func TestAccept(t *testing.T) {
	b := newBench(t)
	s := b.serve(flow(head("one", func(_ context.Context, r *run) (any, error) { return r.Seen(), nil }), head("two", nil),
		step("three", func(_ context.Context, r *run) (any, error) {
			if r.Seen() != nil || r.Accepting() != nil {
				return nil, errors.New("it is accepted already")
			}
			out, err := workflow.MustOutput[string](r, "one")
			return out, err
		})), func(o *workflow.Options) { o.Poll = time.Hour })
	j, birth := b.accept(s, "what was read", nil)
	if r := b.job(j); r.State != job.Running || r.Fence != 1 || r.Holder == nil || *r.Holder != s.members.id || r.Progress != 66 || r.Cancellable {
		t.Errorf("as committed: %+v", r)
	}
	birth.Begin()
	b.ends(j, job.Succeeded)
	b.expect("one accepting", "two accepting", "three", "finish succeeded")
	var outputs []string
	rows, err := b.db.App.Query(b.ctx, "SELECT output::text FROM job_steps WHERE job_id = $1 ORDER BY position", j)
	if err != nil {
		t.Fatal(err)
	}
	if outputs, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`"what was read"`, `"two"`, `"what was read"`}, outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	if n := b.heads(); n != 2 {
		t.Errorf("%d effects of the head", n)
	}
}

// A flow that is nothing but head ends without another step.
func TestAcceptAllHead(t *testing.T) {
	b := newBench(t)
	s := b.serve(flow(head("one", nil)), func(o *workflow.Options) { o.Poll = time.Hour })
	j, birth := b.accept(s, nil, nil)
	birth.Begin()
	b.ends(j, job.Succeeded)
	b.expect("one accepting", "finish succeeded")
}

// A head step that waits or fails leaves no trace, and the job is queued to do so
// in the open.
func TestAcceptRefused(t *testing.T) {
	for what, why := range map[string]error{
		"waits": workflow.Wait("for better times", time.Hour),
		"fails": errs.New(errs.NoNodeFits, "no room"),
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			s := b.serve(flow(head("one", nil), head("two", func(_ context.Context, r *run) (any, error) {
				return nil, why
			}), step("three", nil)), func(o *workflow.Options) { o.Poll = time.Hour })
			j, birth := b.accept(s, nil, nil)
			// the executor's own first look may have found the job by now
			if birth != nil || b.heads() != 0 {
				t.Errorf("%v, %d effects", birth, b.heads())
			}
			s.Nudge()
			if what == "fails" {
				b.ends(j, job.Failed)
				return
			}
			b.until(j, "parked", func(r row) bool { return r.State == job.Waiting && r.WaitReason == "for better times" })
			b.tx(func(tx pgx.Tx) error { return workflow.Cancel(b.ctx, tx, j) })
			s.Nudge()
			b.ends(j, job.Cancelled)
		})
	}
}

// Whoever may not act, or has too much to do, queues the job; a transaction that
// does not commit leaves the place free.
func TestAcceptLeavesToOthers(t *testing.T) {
	b := newBench(t)
	gate := make(chan struct{})
	f := flow(step("one", func(ctx context.Context, _ *run) (any, error) {
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	}))
	s := b.serve(f, func(o *workflow.Options) { o.Workers, o.Poll = 1, time.Hour })
	rolledBack := errors.New("rolled back")
	for range 10 {
		_, birth := b.accept(s, nil, rolledBack)
		birth.Drop()
	}
	var born []id.ID
	for range 4 { // as many as may wait for one worker
		j, birth := b.accept(s, nil, nil)
		if birth == nil {
			t.Fatal("a free place was not used")
		}
		birth.Begin()
		born = append(born, j)
	}
	late, birth := b.accept(s, nil, nil)
	if birth != nil {
		t.Error("a job beyond the bound was taken on")
	}
	close(gate)
	for _, j := range born {
		b.ends(j, job.Succeeded)
	}
	s.Nudge()
	b.ends(late, job.Succeeded)

	s.members.expire(errors.New("its lease ran out"))
	if _, birth := b.accept(s, nil, nil); birth != nil {
		t.Error("a server that is no member took a job on")
	}
}

// A server that stops between the commit and the first step gives the job back.
func TestAcceptThenStop(t *testing.T) {
	b := newBench(t)
	f := flow(head("one", nil), step("two", nil))
	s := b.serve(f, nil)
	j, birth := b.accept(s, nil, nil)
	s.stop()
	<-s.done
	birth.Begin()
	if r := b.job(j); r.Holder != nil {
		t.Errorf("still held: %+v", r)
	}
	b.serve(f, nil)
	b.ends(j, job.Succeeded)
	b.expect("one accepting", "two", "finish succeeded")
}
