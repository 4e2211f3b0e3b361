package agent

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A VM that runs is moved by two nodes, each of which keeps on its disk how far it is:
//
//	source  sending ──> sent ──> swapped, disowned: its process is killed
//	           │          └────> abandoned: it goes on here
//	           └ broken off: it goes on here, and nothing is kept of the move
//	target  waiting ──> asking ──> swapped: it executes here
//	           │          ├──────> abandoned, disowned: its process is killed
//	           └─────────────────> abandoned
//
// The source says "sent" to the target once its driver has, and asks for the verdict,
// again and again, on a stream of its own between the two. The target is asking once the
// source has said so and its own driver has everything; then it asks any server for the
// swap, for swapPatience. Its verdict is on its disk before anything follows from it, and
// the source acts on that verdict alone, which the control plane brings it where the two
// nodes do not reach each other. So whatever is cut or dies, one of the two executes, or
// none does until somebody brings the verdict.

// move is what a node remembers of the move of a VM that runs.
type move struct {
	Migration id.ID `json:"migration"`
	// Target: is this node the one that it goes to?
	Target bool `json:"target,omitempty"`
	// Peer is the other node, and Address and Ticket its door, at the source.
	Peer    id.ID  `json:"peer"`
	Address string `json:"address,omitempty"`
	Ticket  string `json:"ticket,omitempty"`
	// Epoch that the source has. The target's incarnation has the next.
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
	// Paused: was the guest halted before?
	Paused  bool             `json:"paused,omitempty"`
	State   moveState        `json:"state"`
	Verdict nodelink.Verdict `json:"verdict,omitempty"`
	// Owed: does something follow from the verdict yet? It is written with that, and again
	// once all has been done. Records of older agents do not tell.
	Owed bool `json:"owed,omitempty"`
}

// of tells whether it is a migration's.
func (m *move) of(migration id.ID) bool { return m != nil && m.Migration == migration }

// done tells whether nothing is left to be done but to say what came of it. A target that owes
// something does it by itself.
func (m *move) done() bool { return m.State == moveSettled && (m.Target || !m.Owed) }

// sentAway tells whether a VM may be another node's by now, or is: nothing starts it here.
func (m *move) sentAway() bool {
	return m != nil && !m.Target && (m.State == moveSent || m.State == moveSettled && m.Verdict != nodelink.Abandoned)
}

type moveState string

const (
	moveSending moveState = "sending"
	moveSent    moveState = "sent"
	moveWaiting moveState = "waiting"
	moveAsking  moveState = "asking"
	moveSettled moveState = "settled"
)

// streamWord is the stream on which the source tells that it has sent all, and hears the
// verdict.
const streamWord = "word"

// word is what goes over it.
type word struct {
	Migration id.ID            `json:"migration"`
	Verdict   nodelink.Verdict `json:"verdict,omitempty"`
}

// settling is a move that this process is about to settle.
type settling struct {
	// of is the migration that it settles: that of a former move says nothing of the next.
	of id.ID
	// said is closed once the source has said that all is sent; nobody, once nobody waits
	// any more; done, once the verdict is on the disk and carried out.
	said, nobody, done chan struct{}
	saidOnce, stopOnce sync.Once
	// verdict is what it is, once done is closed: the guest's record may be of its next move
	// by then
	verdict nodelink.Verdict
	// acting is held by who carries a verdict out at the source; carried: was that done?
	acting  sync.Mutex
	carried bool
}

func newSettling(of id.ID) *settling {
	return &settling{of: of, said: make(chan struct{}), nobody: make(chan struct{}), done: make(chan struct{})}
}

func (s *settling) say()  { s.saidOnce.Do(func() { close(s.said) }) }
func (s *settling) give() { s.stopOnce.Do(func() { close(s.nobody) }) }

// end tells the verdict to all who wait for it.
func (s *settling) end(v nodelink.Verdict) {
	s.verdict = v
	close(s.done)
}

// migrator gives the driver's ability.
func (a *Agent) migrator() (hypervisor.Migrator, error) {
	d, ok := a.driver.(hypervisor.Migrator)
	if !ok || !a.driver.Capabilities().Migrate || a.cfg.Neighbours == nil {
		return nil, errs.New(errs.Unsupported, "this node cannot move guests that run: its hypervisor cannot, or it speaks with no other node")
	}
	return d, nil
}

// moved writes how far a move is; false where the record is of none any more, or of another.
func (a *Agent) moved(g *guest, migration id.ID, change func(*move)) (is bool, err error) {
	err = g.change(a.records, func(r *record) {
		if is = r.Move.of(migration); !is {
			return
		}
		next := *r.Move
		change(&next)
		r.Move = &next
	})
	return is, err
}

// paid writes that all has been done that follows from a verdict.
func (a *Agent) paid(g *guest, migration id.ID) error {
	_, err := a.moved(g, migration, func(m *move) { m.Owed = false })
	return err
}

// settleVM brings a move to its verdict.
func (a *Agent) settleVM(ctx context.Context, _ Peer, g *guest, c *nodelink.SettleVM) (any, error) {
	if err := g.endWarm(ctx, c.Operation); err != nil {
		return nil, err
	}
	m := g.snapshot().Move
	if !m.of(c.Operation) {
		// nothing has begun here, or all is as it was; what comes late is fenced off
		return nodelink.MoveReply{Verdict: nodelink.Abandoned}, nil
	}
	if m.done() {
		return g.reply(m.Verdict), nil
	}
	if !m.Target {
		return a.settleSource(ctx, g, *m, c.Verdict)
	}
	s, anew := g.settlingOf(c.Operation)
	if anew {
		return a.unreceive(ctx, g, *m)
	}
	s.give()
	select {
	case <-s.done:
	case <-a.life.Done():
		return nil, errs.New(errs.NodeUnreachable, "the agent ends")
	case <-ctx.Done():
		return nil, errs.New(errs.Timeout, "it is not settled yet whose VM %s is", c.VM).Because(ctx.Err())
	}
	return g.reply(s.verdict), nil
}

// unreceive forgets a move that was to be received here, and was not: nobody has asked for
// the VM, nor will, and it may be received at the next try.
func (a *Agent) unreceive(ctx context.Context, g *guest, m move) (any, error) {
	if m.State != moveWaiting {
		return nil, errs.New(errs.Internal, "the move of VM %s is %s here, and nobody brings it to its end", g.snapshot().VM, m.State)
	}
	err := a.endLanded(ctx, g.snapshot().VM)
	if err == nil {
		err = g.change(a.records, func(r *record) {
			if r.Move.of(m.Migration) {
				r.Move = nil
			}
		})
	}
	return nodelink.MoveReply{Verdict: nodelink.Abandoned}, err
}

// verdict is that of a move; Abandoned when nothing is known of it any more.
func (g *guest) verdict(migration id.ID) nodelink.Verdict {
	m := g.snapshot().Move
	if !m.of(migration) {
		return nodelink.Abandoned
	}
	return m.Verdict
}

func (g *guest) reply(v nodelink.Verdict) nodelink.MoveReply {
	out := nodelink.MoveReply{Verdict: v}
	if m := g.snapshot().Move; m != nil {
		out.Paused, out.Progress = m.Paused, g.progress(m.Migration)
	}
	return out
}

// settlingOf gives the settling of a guest's move; anew where this process has not begun it.
func (g *guest) settlingOf(migration id.ID) (s *settling, anew bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.settling == nil || g.settling.of != migration {
		g.settling, anew = newSettling(migration), true
	}
	return g.settling, anew
}

func (g *guest) settleAnew(migration id.ID) *settling {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settling = newSettling(migration)
	return g.settling
}

// background runs f until the agent closes.
func (a *Agent) background(f func(context.Context)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life.Err() != nil {
		return
	}
	a.work.Go(func() { f(a.life) })
}

// resumeMove takes up a move that was not at its end when the agent ended.
func (a *Agent) resumeMove(ctx context.Context, g *guest) error {
	m := g.snapshot().Move
	if m == nil {
		return nil
	}
	s, alive, err := a.live(ctx, g.snapshot().VM)
	if err != nil {
		return err
	}
	if m.Target {
		// halted, of a move that is the last that was asked of it: it may have been taken over, and not told to execute
		owes := alive && m.Owed && g.snapshot().Operation == m.Migration
		a.resumeTarget(g, *m, alive && s.Phase == vm.PhaseIncoming, owes)
		return nil
	}
	sent := alive && s.Reason == hypervisor.SentAway
	return a.resumeSource(g, *m, sent, sent || alive && m.Owed)
}

// resumeTarget takes a move up at its target, whose process may still wait. It owes to
// execute if nobody has written that it does.
func (a *Agent) resumeTarget(g *guest, m move, waits, owes bool) {
	switch {
	case m.State != moveSettled:
	case (waits || owes) && m.Verdict == nodelink.Swapped: // it may have been about to execute
		a.background(func(ctx context.Context) {
			a.own(ctx, g, m)
			a.retry(ctx, func() error { return a.paid(g, m.Migration) })
		})
		return
	case waits: // or to be ended
		a.background(func(ctx context.Context) {
			a.retry(ctx, func() error {
				if !g.snapshot().Move.of(m.Migration) {
					return nil // what waits is of another
				}
				return a.endLanded(ctx, g.snapshot().VM)
			})
		})
		return
	default:
		return
	}
	set := g.settleAnew(m.Migration)
	if m.State == moveWaiting {
		set.give() // whether the source has sent all is not known any more
	} else {
		set.say()
	}
	a.background(func(ctx context.Context) { a.land(ctx, g, m, set) })
}

// resumeSource takes a move up at its source. What its record and its driver say of the
// guest counts: it was sent, or goes on as it was. One that was sent and has no process any
// more is not started before its target has said whose it is: it may be the target's. One
// that was told to go on and is halted owes that, whatever it is halted for.
func (a *Agent) resumeSource(g *guest, m move, sent, owes bool) error {
	switch {
	case m.State == moveSettled && m.Verdict == nodelink.Abandoned && !owes:
		return nil
	case m.State == moveSending && !sent:
		return g.change(a.records, func(r *record) { r.Move = nil })
	case m.State == moveSending:
		if _, err := a.moved(g, m.Migration, func(m *move) { m.State = moveSent }); err != nil {
			return err
		}
		m.State = moveSent
	}
	set := g.settleAnew(m.Migration)
	a.background(func(ctx context.Context) { a.hear(ctx, g, m, set) })
	return nil
}

// retryEvery spaces tries of what has to work in the end.
const retryEvery = time.Second

// retry does something until it works, or the agent closes.
func (a *Agent) retry(ctx context.Context, f func() error) {
	for {
		err := f()
		if err == nil {
			return
		}
		a.log.Warn("a move between nodes is not at its end yet; it is tried again", "error", err)
		if a.cfg.Clock.Sleep(ctx, retryEvery) != nil {
			return
		}
	}
}

// landing tells whether an incarnation is not this node's yet, or never was: what is seen
// of it is nobody's observation.
func (a *Agent) landing(r hypervisor.Ref) bool {
	a.mu.Lock()
	g := a.guests[r.VM]
	a.mu.Unlock()
	if g == nil {
		return false
	}
	m := g.snapshot().Move
	return m != nil && m.Target && r.Epoch == m.Epoch+1 && !(m.State == moveSettled && m.Verdict == nodelink.Swapped)
}

// endLanded kills what a move has left of a VM that is to be removed here: a process that
// never executed, or never will again.
func (a *Agent) endLanded(ctx context.Context, v id.ID) error {
	s, alive, err := a.live(ctx, v)
	if err != nil || !alive || s.Phase != vm.PhaseIncoming && s.Reason != hypervisor.SentAway {
		return err
	}
	_, err = a.driver.Kill(ctx, s.Ref)
	return err
}

func tellWord(to io.Writer, w word) error { return json.NewEncoder(to).Encode(w) }

func hearWord(from io.Reader) (w word, err error) {
	err = json.NewDecoder(io.LimitReader(from, 1<<12)).Decode(&w)
	return w, err
}
