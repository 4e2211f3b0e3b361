package flows_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// alone is the membership of a server without others.
type alone struct{ id id.ID }

// ID implements workflow.Membership.
func (a alone) ID() id.ID { return a.id }

// Dead implements workflow.Membership.
func (alone) Dead(id.ID) bool { return false }

// Bind implements workflow.Membership.
func (alone) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// execute runs jobs until the test ends; fault may disturb them.
func execute(t *testing.T, w *world, fault func(workflow.Point)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := workflow.New(workflow.Options{
		Pool: w.DB.App, Members: alone{id.New()}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Flows: flows.Bound(w.Env),
		Poll: 10 * time.Millisecond, Backoff: func(int) time.Duration { return 10 * time.Millisecond },
		Fault: func(p workflow.Point) error { fault(p); return nil },
	})
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func undisturbed(workflow.Point) {}

// job looks again and again until the job is as wanted.
func (w *world) job(t *testing.T, which id.ID, what string, is func(job.Job) bool) job.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		j, err := w.Service.Job(t.Context(), which)
		if err != nil {
			t.Fatal(err)
		}
		if is(j) {
			return j
		}
		if (clock.System{}).Sleep(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("never: %s; the job is %s %q", what, j.State, j.WaitReason)
		}
	}
}

func ended(j job.Job) bool { return j.State.Ended() || j.State == job.NeedsAttention }

func waitsFor(node string) func(job.Job) bool {
	return func(j job.Job) bool { return ended(j) || strings.Contains(j.WaitReason, node) }
}

func (w *world) removeByForce(t *testing.T, node string) {
	t.Helper()
	if _, err := w.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), node, nil); err != nil {
		t.Fatal(err)
	}
}

// A node that is removed by force leaves no job hanging, whatever the job was at:
// for every workflow and every step, before and after it, at once or after the
// node had been away for a while.
func TestNodeGoneUnderEveryStep(t *testing.T) {
	for _, f := range flows.All() {
		p, ok := proofs[f.Name]
		if !ok || slices.Contains([]string{vm.JobMigrate, vm.JobMigrateLive, vm.JobMigrateWarm}, f.Name) || p.others {
			continue // TestEveryFlowIsProved has said so, or it has two nodes, or other jobs, and a test of its own
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			for _, s := range f.Steps {
				for _, m := range []workflow.Moment{workflow.BeforeDo, workflow.AfterDo} {
					at := workflow.Point{Flow: f.Name, Step: s.Name, Moment: m}
					t.Run(strings.ReplaceAll(fmt.Sprintf("removed %s of %s", m, s.Name), " ", "_"), func(t *testing.T) { goneUnder(t, p, at, true) })
					t.Run(strings.ReplaceAll(fmt.Sprintf("away %s of %s", m, s.Name), " ", "_"), func(t *testing.T) { goneUnder(t, p, at, false) })
				}
			}
		})
	}
}

func goneUnder(t *testing.T, p proof, at workflow.Point, atOnce bool) {
	w := &world{Cluster: controltest.New(t, 1), name: "vm"}
	if p.before != nil {
		if err := p.before(t.Context(), w, w.name); err != nil {
			t.Fatal(err)
		}
	}
	a, err := p.ask(t.Context(), w, w.name)
	if err != nil {
		t.Fatal(err)
	}
	w.loses(t, *a.Job, at, w.Nodes[0], atOnce)
	j := w.job(t, *a.Job, "it ends, or looks for another node", func(j job.Job) bool { return ended(j) || strings.Contains(j.WaitReason, "no node") })
	if !ended(j) {
		cancelPending(t, w, *a.Job)
	} else if at.Flow == vm.JobDelete || at.Flow == flows.JobImageDelete {
		if j.State != job.Succeeded {
			t.Errorf("a deletion ended as %s: %+v", j.State, j.ErrorMessage)
		}
	} else if j.State != job.Succeeded && (j.State != job.Failed || (j.ErrorCode != string(errs.NodeRemoved) && j.ErrorCode != string(errs.NodeUnreachable))) {
		t.Errorf("it ended as %s: %+v", j.State, j.ErrorMessage)
	}
	goneOrLost(t, w)
}

// loses has a node go, for good, at a point of a job: at once, or after the job has noticed
// that it is away.
func (w *world) loses(t *testing.T, which id.ID, at workflow.Point, n *controltest.Node, atOnce bool) {
	t.Helper()
	went := make(chan struct{})
	var once sync.Once
	execute(t, w, func(p workflow.Point) {
		if p.Job != which || p.Step != at.Step || p.Moment != at.Moment {
			return
		}
		once.Do(func() {
			defer close(went)
			n.SetDown(true)
			if atOnce {
				w.removeByForce(t, n.Name)
			}
		})
	})
	<-went
	if !atOnce {
		w.job(t, which, "it ends or names the node it waits for", waitsFor(n.Name))
		w.removeByForce(t, n.Name)
	}
}

// cancelPending ends a creation that no node is left for.
func cancelPending(t *testing.T, w *world, which id.ID) {
	t.Helper()
	if _, err := w.Service.AskVM(t.Context(), controltest.Admin(), w.name, vm.Delete, control.Stop{}); err != nil {
		t.Fatal(err)
	}
	w.job(t, which, "it is cancelled", func(j job.Job) bool { return j.State == job.Cancelled })
}

// goneOrLost: the VM is gone, or nothing but its deletion is left to do, and that
// works without any node.
func goneOrLost(t *testing.T, w *world) {
	t.Helper()
	if drift, err := w.Store.NodeUsageDrift(t.Context()); err != nil || len(drift) > 0 {
		t.Errorf("drift: %v %v", drift, err)
	}
	v, err := w.Service.VM(t.Context(), w.name)
	if errs.Is(err, errs.NotFound) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if a := vm.Appear(v); a.State != vm.Failed || !strings.Contains(a.Reason, "node n1 was removed by force") || v.Job != nil || v.Intent.Reserved {
		t.Fatalf("%+v; job %v", a, v.Job)
	}
	for _, r := range vm.Requests() {
		if r == vm.Delete {
			continue
		}
		if _, err := w.Service.AskVM(t.Context(), controltest.Admin(), w.name, r, control.Stop{}); !errs.Is(err, errs.NodeRemoved) {
			t.Errorf("%s: %v", r, err)
		}
	}
	a, err := w.Service.AskVM(t.Context(), controltest.Admin(), w.name, vm.Delete, control.Stop{})
	if err != nil {
		t.Fatal(err)
	}
	if j := w.job(t, *a.Job, "it is deleted", ended); j.State != job.Succeeded {
		t.Errorf("the deletion ended as %s: %+v", j.State, j.ErrorMessage)
	}
	if err := gone(t.Context(), w, w.name); err != nil {
		t.Error(err)
	}
}

// A deletion whose node is away waits, names the node, and goes on by itself when
// the node returns, however long that takes.
func TestDeleteWaitsForItsNode(t *testing.T) {
	w := &world{Cluster: controltest.New(t, 1), name: "vm"}
	if err := started(t.Context(), w, w.name); err != nil {
		t.Fatal(err)
	}
	n := w.Nodes[0]
	n.SetDown(true)
	a, err := ask(vm.Delete)(t.Context(), w, w.name)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, w, undisturbed)
	const why = "node n1 does not report: the VM is removed when it returns, or when the node is removed by force"
	w.job(t, *a.Job, "it waits and says for what", func(j job.Job) bool { return j.State == job.Waiting && j.WaitReason == why })
	// many more looks than failures that a job may have
	for range 25 {
		if _, err := workflow.Wake(t.Context(), w.DB.App, workflow.Filter{Jobs: []id.ID{*a.Job}}); err != nil {
			t.Fatal(err)
		}
		if j := w.job(t, *a.Job, "it looked", func(j job.Job) bool { return j.State == job.Waiting }); j.WaitReason != why {
			t.Fatalf("it waits because %q", j.WaitReason)
		}
	}
	w.appearsAsDeleted(t, why)
	if len(w.Running()) != 1 {
		t.Error("somebody ended the guest of a node that is away")
	}
	n.SetDown(false)
	n.Kill()
	if err := n.Return(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j := w.job(t, *a.Job, "it is deleted", ended); j.State != job.Succeeded {
		t.Errorf("%s %+v", j.State, j.ErrorMessage)
	}
	if left, err := w.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// appearsAsDeleted waits until a VM whose node is away says why it is still there: while
// its job looks again, it has no reason for a moment.
func (w *world) appearsAsDeleted(t *testing.T, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		v, err := w.Service.VM(ctx, w.name)
		a := vm.Appear(v)
		if err != nil || a.State != vm.Unknown || a.Last != vm.Deleting {
			t.Fatalf("the VM appears as %+v, %v", a, err)
		}
		if strings.Contains(a.Reason, why) {
			return
		}
		if (clock.System{}).Sleep(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("it never says why: %+v", a)
		}
	}
}

// A job that had stopped half-way and waits for an operator goes on, too, when its
// node is removed by force: that was the operator's word.
func TestAttentionEndsWithTheNode(t *testing.T) {
	w := &world{Cluster: controltest.New(t, 1), name: "vm"}
	if err := started(t.Context(), w, w.name); err != nil {
		t.Fatal(err)
	}
	a, err := ask(vm.Delete)(t.Context(), w, w.name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.DB.App.Exec(t.Context(), "UPDATE jobs SET state = 'needs_attention', error_code = 'needs_attention', error_message = 'x' WHERE id = $1", *a.Job)
	if err != nil {
		t.Fatal(err)
	}
	w.Nodes[0].SetDown(true)
	w.removeByForce(t, "n1")
	execute(t, w, undisturbed)
	w.job(t, *a.Job, "it goes on to its end", func(j job.Job) bool { return j.State == job.Succeeded })
	if err := gone(t.Context(), w, w.name); err != nil {
		t.Error(err)
	}
}

// Stop and start wait for a node that is away, before anything is asked of it, and
// can be cancelled then.
func TestStopAndStartWaitForTheirNode(t *testing.T) {
	for r, c := range map[vm.Request]struct {
		before      func(context.Context, *world, string) error
		still, then vm.State
	}{
		vm.Stop:  {started, vm.Running, vm.Stopped},
		vm.Start: {created, vm.Stopped, vm.Running},
	} {
		t.Run(string(r), func(t *testing.T) {
			w := &world{Cluster: controltest.New(t, 1), name: "vm"}
			if err := c.before(t.Context(), w, w.name); err != nil {
				t.Fatal(err)
			}
			n := w.Nodes[0]
			n.SetDown(true)
			execute(t, w, undisturbed)
			asked := func() id.ID {
				a, err := ask(r)(t.Context(), w, w.name)
				if err != nil {
					t.Fatal(err)
				}
				w.job(t, *a.Job, "it waits for the node", func(j job.Job) bool {
					return j.State == job.Waiting && strings.HasPrefix(j.WaitReason, "node n1 does not report: ")
				})
				return *a.Job
			}
			first := asked()
			if _, err := w.Service.CancelJob(t.Context(), controltest.Admin(), first); err != nil {
				t.Fatal(err)
			}
			w.job(t, first, "it is cancelled", func(j job.Job) bool { return j.State == job.Cancelled })
			if err := appears(t.Context(), w, w.name, c.still); err != nil {
				t.Error(err)
			}
			second := asked()
			n.SetDown(false)
			n.Kill()
			if err := n.Return(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.job(t, second, "it is done", func(j job.Job) bool { return j.State == job.Succeeded })
			if err := appears(t.Context(), w, w.name, c.then); err != nil {
				t.Error(err)
			}
		})
	}
}
