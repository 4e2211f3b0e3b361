package agent

import (
	"context"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A warm move takes hours, or days, and no command does: the source goes on by itself, with or
// without a server, and only its end, at the cutover, is as that of any move. What it has
// copied is lost with either agent, for neither can know what the other end has missed. Who
// asked begins it anew then.

// warming is a warm move from here, under way or just ended.
type warming struct {
	migration id.ID
	stop      context.CancelFunc
	done      chan struct{}
	err       error // once done is closed
}

// warm has a guest be sent in the background.
func (a *Agent) warm(g *guest, m move, send func(context.Context) error) {
	if old := g.warming.Load(); old != nil && old.migration == m.Migration && !old.over() {
		return // it is about that
	}
	ctx, stop := context.WithCancel(a.life)
	w := &warming{migration: m.Migration, stop: stop, done: make(chan struct{})}
	g.warming.Store(w)
	a.background(func(context.Context) {
		defer close(w.done)
		if w.err = send(ctx); w.err != nil {
			a.log.Warn("the disks of a guest are not copied in rounds any more", "vm", g.snapshot().VM, "error", w.err)
		}
	})
}

func (w *warming) over() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// endWarm breaks a warm move off, unless it has come to its end, and returns once it has ended.
func (g *guest) endWarm(ctx context.Context, migration id.ID) error {
	w := g.warming.Load()
	if w == nil || w.migration != migration {
		return nil
	}
	w.stop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Timeout, "the copying of the disks of VM %s does not end", g.snapshot().VM).Because(ctx.Err())
	}
}

// goes says whether a node is about a move, and what came of it.
func (a *Agent) goes(g *guest, migration id.ID, out *nodelink.MoveProgress) {
	if w := g.warming.Load(); w != nil && w.migration == migration {
		if out.Going = !w.over(); !out.Going {
			out.Failed = nodelink.NewWireError(w.err)
		}
	}
	m := g.snapshot().Move
	switch {
	case m == nil || m.Migration != migration:
	case m.State == moveSettled:
		out.Verdict = m.Verdict
	case m.Target || m.State == moveSent:
		out.Going = true
	}
}

// cutoverVM has a warm move come to its end.
func (a *Agent) cutoverVM(ctx context.Context, _ Peer, g *guest, c *nodelink.CutoverVM) (any, error) {
	d, ok := a.driver.(hypervisor.Warmer)
	if w := g.warming.Load(); !ok || w == nil || w.migration != c.Operation {
		return nil, hypervisor.ErrNotWarm(c.VM)
	}
	return nodelink.Done{}, d.Cutover(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.OwnerEpoch})
}

func warmthOf(w *hypervisor.Warmth) *nodelink.Warmth {
	if w == nil {
		return nil
	}
	return &nodelink.Warmth{
		Rounds: w.Rounds, LastBytes: w.LastBytes, LastTookMS: w.LastTook.Milliseconds(), Changed: w.Changed, Cut: w.Cut, Cuts: w.Cuts,
	}
}
