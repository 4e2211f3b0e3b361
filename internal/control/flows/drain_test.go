package flows_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// carryOut has another server carry out all jobs but those of a kind.
func carryOut(tb testing.TB, c *controltest.Cluster, but string) {
	var others []workflow.Bound
	for _, b := range flows.Bound(c.Env) {
		if b.Name() != but {
			others = append(others, b)
		}
	}
	e := workflow.New(workflow.Options{
		Pool: c.DB.App, Members: alone{id.New()}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Flows: others, Poll: 20 * time.Millisecond,
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	tb.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			tb.Error(err)
		}
	})
}

// quiet waits until no job is open.
func (w *world) quiet(ctx context.Context) error {
	for {
		var open int
		err := w.DB.App.QueryRow(ctx, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'unwinding')").Scan(&open)
		if err == nil && open == 0 {
			return nil
		}
		if err == nil {
			err = (clock.System{}).Sleep(ctx, 5*time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("%d jobs are open: %w", open, err)
		}
	}
}

func deaf() drain.Request { return drain.Request{Grace: grace, Parallel: 2} }

// onN1 has a VM run on n1, and one that is stopped.
func onN1(ctx context.Context, w *world, name string) error {
	if _, err := w.Service.SetNode(ctx, controltest.Admin(), "n1", node.Active, nil); err != nil {
		return err
	}
	return makeOnN1(ctx, w, w.NewVM(name, true), w.NewVM(name+"-off", false))
}

func makeOnN1(ctx context.Context, w *world, vms ...control.NewVM) error {
	for _, n := range vms {
		n.Node = "n1"
		if _, err := w.Service.CreateVM(ctx, controltest.Admin(), n); err != nil {
			return err
		}
	}
	return w.quiet(ctx)
}

func drainsN1(ctx context.Context, w *world, _ string) (control.Accepted, error) {
	return w.Service.DrainNode(ctx, controltest.Admin(), "n1", deaf())
}

// drainedN1 looks whether what was drained is on n2 as it was on n1, and whether a drain
// that did not succeed has left each VM whole on one of them.
func drainedN1(ctx context.Context, w *world, name string, end job.State) error {
	if err := endedWith(ctx, w, end); err != nil {
		return err
	}
	if end == job.Succeeded {
		return errors.Join(areOn(ctx, w, "n2", name), hasSeed(ctx, w, name))
	}
	return wholeSomewhere(ctx, w, name)
}

// offN1 has a VM of n1 drained, beside which there is none.
func offN1(ctx context.Context, w *world, name string) error {
	if _, err := w.Service.ReturnNode(ctx, controltest.Admin(), "n1", false, deaf()); err != nil {
		return err
	}
	vms, _, err := w.Service.VMs(ctx, store.Page{Limit: 10})
	for _, v := range vms {
		if _, err := ask(vm.Delete)(ctx, w, v.Intent.Name); err != nil {
			return err
		}
	}
	if err == nil {
		err = makeOnN1(ctx, w, w.NewVM(name, false))
	}
	if err != nil {
		return err
	}
	if _, err := drainsN1(ctx, w, name); err != nil {
		return err
	}
	return w.quiet(ctx)
}

func returnsN1(ctx context.Context, w *world, _ string) (control.Accepted, error) {
	return w.Service.ReturnNode(ctx, controltest.Admin(), "n1", true, deaf())
}

func backOnN1(ctx context.Context, w *world, name string, end job.State) error {
	if err := endedWith(ctx, w, end); err != nil {
		return err
	}
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err == nil && end == job.Succeeded && v.Node.Name != "n1" {
		err = fmt.Errorf("it is on %s", v.Node.Name)
	}
	return errors.Join(err, appears(ctx, w, name, vm.Stopped))
}

// endedWith looks whether the record ended as the job did, with nothing under way.
func endedWith(ctx context.Context, w *world, end job.State) error {
	d, err := w.Service.LastDrain(ctx, "n1")
	if err == nil && (d.State != string(end) || len(d.In(drain.Running))+len(d.In(drain.Queued)) > 0) {
		err = fmt.Errorf("the record of a drain that ended as %s: %+v", end, d)
	}
	return err
}

func areOn(ctx context.Context, w *world, where, name string) error {
	for _, n := range []string{name, name + "-off"} {
		v, err := w.Store.VMGet(ctx, w.Project, n)
		if err != nil {
			return err
		}
		if v.Node.Name != where {
			return fmt.Errorf("%s is on %s", n, v.Node.Name)
		}
	}
	return wholeSomewhere(ctx, w, name)
}

func wholeSomewhere(ctx context.Context, w *world, name string) error {
	return errors.Join(appears(ctx, w, name, vm.Running), appears(ctx, w, name+"-off", vm.Stopped))
}

// A server dies at every moment at which a VM's next job was begun or is to be: another
// one goes on, and no VM is moved, stopped or started twice.
func TestDrainOutlivesItsServers(t *testing.T) {
	w := &world{Cluster: controltest.New(t, 2)}
	carryOut(t, w.Cluster, drain.JobDrain)
	for i := range 4 {
		n := w.NewVM(fmt.Sprintf("vm-%d", i), true)
		n.Node = "n1"
		if _, err := w.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.quiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := deaf()
	r.Policy = vm.DrainCold // of the three it has most to begin
	a, err := w.Service.DrainNode(t.Context(), controltest.Admin(), "n1", r)
	if err != nil {
		t.Fatal(err)
	}
	const deaths = 9
	last := id.Nil
	for n := range deaths {
		last = diesAfter(t, w, last, 1+n%2)
	}
	serveDrains(t, w, heir{id.New(), last}, w.Env)
	if j := w.job(t, *a.Job, "it ends", ended); j.State != job.Succeeded {
		t.Errorf("%s %s", j.State, j.ErrorMessage)
	}
	for kind, want := range map[string]int{vm.JobStop: 4, vm.JobMigrate: 4, vm.JobStart: 4} {
		var jobs int
		if err := w.DB.App.QueryRow(t.Context(), "SELECT count(*) FROM jobs WHERE kind = $1 AND state = 'succeeded'", kind).Scan(&jobs); err != nil || jobs != want {
			t.Errorf("%d jobs %s: %v, want %d", jobs, kind, err, want)
		}
	}
	if n, err := w.Service.Node(t.Context(), "n1"); err != nil || n.VMs != 0 {
		t.Errorf("%+v %v", n, err)
	}
}

// diesAfter runs a server that dies right after so many of its writes to the record of a
// drain, each of which begins a job or notes an end.
func diesAfter(t *testing.T, w *world, dead id.ID, writes int) id.ID {
	t.Helper()
	died := make(chan struct{})
	var once sync.Once
	var wrote atomic.Int64
	env, me := w.Env, heir{id.New(), dead}
	env.Drain = func(ctx context.Context, which id.ID, begin bool, write flows.Write) (drain.Drain, error) {
		return w.Env.Drain(ctx, which, begin, func(ctx context.Context, fn func(*store.Tx) error) error {
			if err := write(ctx, fn); err != nil {
				return err
			}
			if wrote.Add(1) < int64(writes) {
				return nil
			}
			once.Do(func() { close(died) })
			return workflow.ErrKilled
		})
	}
	stop := serveDrains(t, w, me, env)
	select {
	case <-died:
	case <-t.Context().Done():
		t.Fatal("it has nothing to write")
	}
	stop()
	return me.id
}

// serveDrains runs a server that carries out drains alone, until it is stopped.
func serveDrains(t *testing.T, w *world, me heir, env flows.Env) (stop func()) {
	t.Helper()
	e := workflow.New(workflow.Options{
		Pool: w.DB.App, Members: me, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Poll: 5 * time.Millisecond,
		Flows: []workflow.Bound{workflow.Bind(flows.NodeDrain(), env)},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// heir is a server for which another one is dead.
type heir struct{ id, dead id.ID }

// ID implements workflow.Membership.
func (h heir) ID() id.ID { return h.id }

// Dead implements workflow.Membership.
func (h heir) Dead(other id.ID) bool { return other == h.dead }

// Bind implements workflow.Membership.
func (heir) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}
