package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const pausedPhase = vm.PhasePaused

// swapPatience is how long the target of a move asks for the swap before it gives up: its
// guest stands still for as long.
const swapPatience = 20 * time.Second

// receiveVM starts a machine that waits for the memory of one that runs elsewhere, and
// opens its door.
func (a *Agent) receiveVM(ctx context.Context, _ Peer, g *guest, c *nodelink.ReceiveVM) (any, error) {
	d, err := a.migrator()
	if err != nil {
		return nil, err
	}
	var from hypervisor.Departure
	if err := json.Unmarshal(c.Departure, &from); err != nil || from.Migration != c.Operation {
		return nil, errs.New(errs.InvalidField, "the departure is not one of this move").Because(err)
	}
	m := move{Migration: c.Operation, Target: true, Peer: c.From, Ticket: c.Ticket, Epoch: c.OwnerEpoch, Paused: from.Paused, State: moveWaiting}
	if old := g.snapshot().Move; old != nil && old.Migration == m.Migration && old.State != moveWaiting {
		return nil, errs.New(errs.InvalidState, "VM %s was received here already, and that is %s: begin the move anew", c.VM, old.State)
	}
	landing, err := a.awaitMemory(ctx, g, d, m, c, from)
	if err != nil {
		return nil, err
	}
	set := g.settleAnew(m.Migration)
	address, err := a.openDoor(g, m, set)
	if err != nil {
		return nil, err
	}
	a.background(func(ctx context.Context) { a.land(ctx, g, m, set) })
	b, err := json.Marshal(landing) //nolint:gosec // a pass for one move: the source needs it, and it travels over mutually authenticated TLS and is not logged
	return nodelink.Received{Landing: b, Address: address, Bare: a.driver.Capabilities().Seals}, err
}

// awaitMemory starts the machine that waits.
func (a *Agent) awaitMemory(ctx context.Context, g *guest, d hypervisor.Migrator, m move, c *nodelink.ReceiveVM, from hypervisor.Departure) (hypervisor.Landing, error) {
	err := g.change(a.records, func(r *record) { r.Move, r.Machine, r.PowerOn, r.Erased = &m, &c.Machine, false, false })
	if err != nil {
		return hypervisor.Landing{}, err
	}
	machine, err := a.machine(ctx, g, c.OwnerEpoch+1, c.Machine)
	if err != nil {
		return hypervisor.Landing{}, err
	}
	machine.Incoming = ""
	return d.Receive(ctx, machine, from)
}

// openDoor lets the source in, until the move is settled and a little longer: so that it
// hears what came of it.
func (a *Agent) openDoor(g *guest, m move, set *settling) (string, error) {
	d, err := a.migrator()
	if err != nil {
		return "", err
	}
	r := hypervisor.Ref{VM: g.snapshot().VM, Epoch: m.Epoch + 1}
	bare := func(name string) bool { return name != streamWord && a.driver.Capabilities().Seals }
	address, shut, err := a.cfg.Neighbours.Land(m.Peer, m.Ticket, bare, func(ctx context.Context, name string, c io.ReadWriteCloser) {
		if name == streamWord {
			a.giveWord(ctx, m, set, c)
			return
		}
		if err := d.Enter(ctx, r, hypervisor.Stream(name), c); err != nil {
			a.log.Warn("what another node sends does not reach its VM", "vm", r.VM, "stream", errs.Clip(name), "error", err)
		}
	})
	if err != nil {
		return "", err
	}
	a.background(func(ctx context.Context) {
		defer shut()
		select {
		case <-set.done:
			_ = a.cfg.Clock.Sleep(ctx, doorTime)
		case <-ctx.Done():
		}
	})
	return address, nil
}

// doorTime is how long a source may take to hear the verdict from its target itself.
const doorTime = 10 * time.Second

// giveWord hears that all was sent, and answers with the verdict.
func (a *Agent) giveWord(ctx context.Context, m move, set *settling, c io.ReadWriter) {
	w, err := hearWord(c)
	if err != nil || w.Migration != m.Migration {
		return
	}
	set.say()
	select {
	case <-set.done:
		_ = tellWord(c, word{Migration: m.Migration, Verdict: set.verdict})
	case <-ctx.Done():
	}
}

// land brings the target's side of a move to its verdict, and carries that out.
func (a *Agent) land(ctx context.Context, g *guest, m move, set *settling) {
	v := nodelink.Abandoned
	if a.stillWaits(ctx, g, m) || m.State == moveWaiting && a.hasLanded(ctx, g, m, set) {
		var err error
		if v, err = a.askSwap(ctx, g, m); err != nil {
			a.log.Error("the target of a move gives it up", "vm", g.snapshot().VM, "error", err)
		}
	}
	if ctx.Err() != nil {
		return // the next agent takes it up
	}
	is := false
	a.retry(ctx, func() (err error) { is, err = a.settled(ctx, g, m, v); return err })
	owns := is && v == nodelink.Swapped
	if owns {
		a.own(ctx, g, m)
	}
	if ctx.Err() != nil {
		return
	}
	set.end(v)
	if owns {
		a.retry(ctx, func() error { return a.paid(g, m.Migration) })
	}
}

// stillWaits tells whether a guest that has landed may be asked for, again. Without its
// process it is of no use here: it never executed, and goes on at its source.
func (a *Agent) stillWaits(ctx context.Context, g *guest, m move) bool {
	if m.State != moveAsking {
		return false
	}
	s, alive, err := a.live(ctx, g.snapshot().VM)
	return err != nil || alive && s.Phase == vm.PhaseIncoming
}

// ownTries is how often a guest that is this node's now is at least told to execute: a host
// that was frozen has none of its time left when it goes on.
const ownTries = 5

// own lets a guest execute that is this node's now. One that cannot, for as long as servers
// are asked for it and for no reason that passes, has crashed: the VM's owner decides what becomes of it.
func (a *Agent) own(ctx context.Context, g *guest, m move) {
	began := a.cfg.Clock.Boot()
	for tries := 1; ; tries++ {
		try, cancel := a.withinTime(ctx, a.patience())
		err := a.takeOver(try, g, m)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Warn("a guest that has moved here does not go on yet; it is tried again", "vm", g.snapshot().VM, "error", err)
		if !passes(err) && tries >= ownTries && a.cfg.Clock.Boot()-began >= a.patience() {
			break
		}
		if a.cfg.Clock.Sleep(ctx, retryEvery) != nil {
			return
		}
	}
	a.log.Error("a guest that has moved here cannot go on, and is ended", "vm", g.snapshot().VM)
	a.retry(ctx, func() error { return a.endLanded(ctx, g.snapshot().VM) })
}

// errUnclaimed is that a guest's disks in storage pools cannot be claimed, or not now.
var errUnclaimed = errors.New("its disks in storage pools cannot be claimed")

// passes tells whether a guest that has moved here waits for something that comes back by
// itself or by somebody's hand: a file server, room on a disk. It stands still until then, as one
// that executes would, and its memory is nowhere else.
func passes(err error) bool {
	return errors.Is(err, errUnclaimed) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// hasLanded waits until all is here and the source has said that it is halted for good.
func (a *Agent) hasLanded(ctx context.Context, g *guest, m move, set *settling) bool {
	d, err := a.migrator()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-set.nobody:
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err = d.Arrived(ctx, hypervisor.Ref{VM: g.snapshot().VM, Epoch: m.Epoch + 1})
	if err == nil {
		select {
		case <-set.said:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		a.log.Warn("a guest that another node was to send did not arrive", "vm", g.snapshot().VM, "node", m.Peer, "error", err)
		return false
	}
	is, err := a.moved(g, m.Migration, func(m *move) { m.State = moveAsking })
	if err != nil {
		a.log.Error("a node cannot write that it has received a guest", "vm", g.snapshot().VM, "error", err)
	}
	return is && err == nil
}

// askSwap asks servers for the VM until one has answered, or patience is over.
func (a *Agent) askSwap(ctx context.Context, g *guest, m move) (nodelink.Verdict, error) {
	ctx, cancel := a.withinTime(ctx, a.patience())
	defer cancel()
	ask := nodelink.Swap{NodeEpoch: a.cfg.Epoch, Migration: m.Migration, VM: g.snapshot().VM, Epoch: m.Epoch}
	var last error
	for {
		var r nodelink.SwapReply
		if r, last = a.askServers(ctx, ask); last == nil && r.Verdict != nodelink.Undecided {
			if r.Verdict != nodelink.Swapped {
				last = errs.New(errs.StaleEpoch, "the swap was refused: %s", r.Why)
			}
			return r.Verdict, last
		}
		if a.cfg.Clock.Sleep(ctx, wordEvery) != nil {
			return nodelink.Abandoned, errs.New(errs.Timeout, "no server has said whose the VM is").Because(last)
		}
	}
}

// askServers asks all servers at once, and takes the first answer: one that hangs keeps no
// guest waiting, and the answer of each is the same.
func (a *Agent) askServers(ctx context.Context, ask nodelink.Swap) (nodelink.SwapReply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		nodelink.SwapReply
		err error
	}
	ways := a.ways()
	answers := make(chan answer, len(ways))
	for _, up := range ways {
		go func() {
			var r answer
			r.err = a.call(ctx, up, nodelink.MethodSwap, ask, &r.SwapReply)
			answers <- r
		}()
	}
	last := error(errs.New(errs.NodeUnreachable, "no server is reached from here"))
	for range ways {
		r := <-answers
		if r.err == nil {
			return r.SwapReply, nil
		}
		last = r.err
	}
	return nodelink.SwapReply{}, last
}

func (a *Agent) patience() time.Duration { return cmp.Or(a.cfg.SwapPatience, swapPatience) }

// withinTime is a context that ends after a time of the agent's clock.
func (a *Agent) withinTime(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	after, free := a.cfg.Clock.After(d)
	go func() {
		defer free()
		select {
		case <-after:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// settled writes the target's verdict down, and ends what is not to be. False where the
// record is not of this move any more: then nor is what waits here.
func (a *Agent) settled(ctx context.Context, g *guest, m move, v nodelink.Verdict) (is bool, err error) {
	err = g.change(a.records, func(r *record) {
		if is = r.Move.of(m.Migration); !is {
			return
		}
		next := m
		next.State, next.Verdict, next.Owed = moveSettled, v, v == nodelink.Swapped
		r.Move = &next
		if v == nodelink.Swapped {
			r.Epoch, r.PowerOn, r.Boot = max(r.Epoch, m.Epoch+1), true, a.cfg.Boot
		}
	})
	if err != nil || !is || v == nodelink.Swapped {
		return is, err
	}
	return is, a.endLanded(ctx, g.snapshot().VM)
}

// takeOver lets a guest execute that is this node's now.
func (a *Agent) takeOver(ctx context.Context, g *guest, m move) error {
	r := hypervisor.Ref{VM: g.snapshot().VM, Epoch: m.Epoch + 1}
	switch err := a.claimOver(g.snapshot(), r.Epoch); {
	case errs.Is(err, errs.StaleEpoch):
		return a.disown(ctx, r, err)
	case err != nil:
		return fmt.Errorf("%w: %w", errUnclaimed, err)
	}
	command := a.driver.Resume
	if m.Paused {
		command = a.driver.Pause
	}
	mark := a.reports.mark()
	s, err := command(ctx, r)
	if err == nil {
		a.tell(ctx, mark, s)
		return nil
	}
	now, alive, looked := a.live(ctx, r.VM)
	if looked == nil && !alive { // it ended: that is what there is to report
		a.reports.report(now)
		return nil
	}
	return err
}
