package flows

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Write runs store writes under a job's claim.
type Write = func(ctx context.Context, fn func(*store.Tx) error) error

// Drain takes a drain as far as it goes now, as control.Service.AdvanceDrain does.
type Drain func(ctx context.Context, which id.ID, begin bool, write Write) (drain.Drain, error)

// NodeDrain empties a node, which was cordoned when the job was accepted: each of its VMs
// is moved or stopped by jobs of its own, as many at a time as were asked for. The drain
// has the job's id. It unwinds by beginning with no further VM and waiting until none is
// half-way: what was moved stays where it is, and the node stays cordoned.
func NodeDrain() workflow.Flow[Env] { return drains(drain.JobDrain) }

// NodeReturn gives back to a node, which was uncordoned when the job was accepted, what
// drains took from it. It unwinds as NodeDrain does.
func NodeReturn() workflow.Flow[Env] { return drains(drain.JobReturn) }

func drains(kind string) workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: kind,
		Steps: []workflow.Step[Env]{
			// its undo takes no VM back: it sees those to their end that were begun
			{Name: "move", Do: moveVMs, Undo: windDown, Cancellable: true},
			{Name: "look", Do: lookAtRest},
		},
		Finish: finishDrain,
	}
}

// How long a drain sleeps between two looks: at VMs that are being worked on, and at such
// as wait for something else.
const (
	lookAtMoves = 100 * time.Millisecond
	lookAtQueue = 2 * time.Second
)

func moveVMs(ctx context.Context, r *run) (any, error) {
	d, err := advance(ctx, r, true)
	if err != nil {
		return nil, err
	}
	if all := len(d.Items); all > 0 {
		if err := r.Progress(ctx, 100*(all-len(d.In(drain.Queued))-len(d.In(drain.Running)))/all); err != nil {
			return nil, err
		}
	}
	return nil, underWay(d, true)
}

func windDown(ctx context.Context, r *run) error {
	d, err := advance(ctx, r, false)
	if err != nil {
		return err
	}
	return underWay(d, false)
}

func advance(ctx context.Context, r *run, begin bool) (drain.Drain, error) {
	return r.Env.Drain(ctx, r.Job.ID, begin, func(ctx context.Context, fn func(*store.Tx) error) error { return write(ctx, r, fn) })
}

// underWay parks the job while VMs are being worked on, or are to be.
func underWay(d drain.Drain, begin bool) error {
	running, queued := d.In(drain.Running), d.In(drain.Queued)
	if len(running) == 0 && (!begin || len(queued) == 0) {
		return nil
	}
	sleep := lookAtMoves
	said := []string{fmt.Sprintf("%d of %d VMs done", len(d.Items)-len(running)-len(queued), len(d.Items))}
	for _, i := range running {
		said = append(said, doing(i))
	}
	if len(running) == 0 {
		sleep = lookAtQueue
		said = append(said, fmt.Sprintf("%s waits: %s", queued[0].Name, queued[0].Why))
	}
	return workflow.Wait(strings.Join(said, "; "), sleep)
}

// doing says what is being done with a VM.
func doing(i drain.Item) string {
	switch i.Stage {
	case drain.Stopping:
		return i.Name + " is stopped"
	case drain.Moving:
		return i.Name + " moves to " + i.Target.Name
	case drain.Starting, drain.Restoring:
		return i.Name + " is started"
	}
	return i.Name
}

// mostLeft VMs are named by the failure of a drain.
const mostLeft = 20

// lookAtRest fails where a VM is not where it should be, and names each.
func lookAtRest(ctx context.Context, r *run) (any, error) {
	d, err := r.Env.Store.DrainGet(ctx, r.Job.ID)
	if err != nil {
		return nil, err
	}
	failed := d.In(drain.Failed)
	if len(failed) == 0 {
		return nil, nil
	}
	var named []string
	for _, i := range failed[:min(len(failed), mostLeft)] {
		named = append(named, i.Name+": "+i.Why)
	}
	what := "node %q is not drained: %d VMs could not be dealt with: %s"
	if d.Kind == drain.Refill {
		what = "node %q did not get back %d VMs: %s"
	}
	return nil, errs.New(errs.InUse, what, d.Node.Name, len(failed), strings.Join(named, "; "))
}

// finishDrain ends the record; what did not begin does not any more.
func finishDrain(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	return store.On(tx).DrainEnd(ctx, r.Job.ID, out.State)
}
