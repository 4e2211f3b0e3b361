package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// departVM says what another node must know to receive a guest.
func (a *Agent) departVM(ctx context.Context, _ Peer, _ *guest, c *nodelink.DepartVM) (any, error) {
	d, err := a.migrator()
	if err != nil {
		return nil, err
	}
	out, err := d.Depart(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.OwnerEpoch}, c.Operation, moveOptions(c.Options))
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(out)
	return nodelink.Departed{Departure: b}, err
}

func moveOptions(o nodelink.MoveOptions) hypervisor.MoveOptions {
	return hypervisor.MoveOptions{
		BytesPerSecond: o.BytesPerSecond, AutoConverge: o.AutoConverge, Channels: o.Channels, Compression: o.Compression,
		Downtime: time.Duration(o.DowntimeMS) * time.Millisecond, Patience: time.Duration(o.PatienceMS) * time.Millisecond,
		Warm: o.Warm, Interval: time.Duration(o.IntervalMS) * time.Millisecond,
	}
}

// sendVM has the driver send a guest, and waits for the verdict.
func (a *Agent) sendRunning(ctx context.Context, _ Peer, g *guest, c *nodelink.SendVM) (any, error) {
	d, err := a.migrator()
	if err != nil {
		return nil, err
	}
	var to hypervisor.Landing
	if err := json.Unmarshal(c.Landing, &to); err != nil || to.Migration != c.Operation {
		return nil, errs.New(errs.InvalidField, "the landing is not one of this move").Because(err)
	}
	s, _, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	m := move{Migration: c.Operation, Peer: c.To, Address: c.Address, Ticket: c.Ticket, Epoch: c.OwnerEpoch, Paused: s.Phase == pausedPhase, State: moveSending}
	switch old := g.snapshot().Move; {
	case !old.of(m.Migration), old.State == moveSending:
		if err := a.beginSend(ctx, g, d, m, to, c); err != nil {
			return nil, err
		}
	case old.done():
		return g.reply(old.Verdict), nil
	}
	if c.Warm {
		return g.reply(nodelink.Undecided), nil
	}
	return a.awaitVerdict(ctx, g, c)
}

// beginSend has a guest be sent, or, of a warm move, begin to be.
func (a *Agent) beginSend(ctx context.Context, g *guest, d hypervisor.Migrator, m move, to hypervisor.Landing, c *nodelink.SendVM) error {
	if err := g.change(a.records, func(r *record) { r.Move = &m }); err != nil {
		return err
	}
	g.pace.begin(m.Migration, c.BytesPerSecond, a.cfg.Clock)
	if c.Warm {
		a.warm(g, m, func(ctx context.Context) error { return a.sendOff(ctx, g, d, m, to, c) })
		return nil
	}
	return a.sendOff(ctx, g, d, m, to, c)
}

// sendOff has the driver send a guest. Once that has, this node asks for the verdict
// until it has it, with or without who gave the command.
func (a *Agent) sendOff(ctx context.Context, g *guest, d hypervisor.Migrator, m move, to hypervisor.Landing, c *nodelink.SendVM) error {
	bare := c.Bare && a.driver.Capabilities().Seals
	dial := func(ctx context.Context, s hypervisor.Stream) (io.ReadWriteCloser, error) {
		c, err := a.cfg.Neighbours.Reach(ctx, Way{Node: m.Peer, Address: m.Address, Ticket: m.Ticket, Name: string(s), Bare: bare})
		if err == nil && a.cfg.Neighbours.Relayed(m.Address) {
			g.relayed.Store(true)
		}
		if err != nil {
			return nil, err
		}
		return g.pace.over(a.life, c), nil
	}
	err := a.sendWatched(ctx, g, d, hypervisor.Ref{VM: to.VM, Epoch: m.Epoch}, to, dial, c.Stall)
	if a.life.Err() != nil {
		return errs.New(errs.NodeUnreachable, "the agent ends")
	}
	if err != nil {
		if e := g.change(a.records, func(r *record) { r.Move = nil }); e != nil {
			a.log.Error("a node cannot write that a move was broken off", "vm", to.VM, "error", e)
		}
		return err
	}
	m.State = moveSent
	set := g.settleAnew(m.Migration)
	a.background(func(ctx context.Context) {
		// the target asks for the VM once it hears of this: not before it is on the disk
		a.retry(ctx, func() error { return a.noteSent(g, m) })
		if ctx.Err() == nil {
			a.hear(ctx, g, m, set)
		}
	})
	return nil
}

// noteSent writes that all was sent, unless more than that has come of it meanwhile.
func (a *Agent) noteSent(g *guest, m move) error {
	_, err := a.moved(g, m.Migration, func(r *move) {
		if r.State == moveSending {
			*r = m
		}
	})
	return err
}

// sendWatched has the driver send a guest, under the eyes of a steward.
func (a *Agent) sendWatched(ctx context.Context, g *guest, d hypervisor.Migrator, from hypervisor.Ref, to hypervisor.Landing, dial hypervisor.Dial, stall *nodelink.StallPolicy) error {
	ctx, breakOff := context.WithCancelCause(ctx)
	defer breakOff(nil)
	s := a.newSteward(d, to.Migration, from, stall, breakOff)
	g.sent.Store(nil)
	g.relayed.Store(false)
	g.steward.Store(s)
	var judged sync.WaitGroup
	if stall != nil {
		judged.Go(func() { s.judge(ctx) })
	}
	_, err := d.Send(ctx, from, to, dial, func(p hypervisor.Progress) {
		g.sent.Store(progressOf(p))
		s.saw(p)
	})
	var gave *errs.Error
	if err != nil && errors.As(context.Cause(ctx), &gave) {
		err = gave.Because(err)
	}
	breakOff(nil)
	judged.Wait()
	return err
}

// progress is how far a guest's move from here is, or was; nothing when its last was
// another.
func (g *guest) progress(migration id.ID) (out nodelink.MoveProgress) {
	s := g.steward.Load()
	if s == nil || s.move != migration {
		return out
	}
	if p := g.sent.Load(); p != nil {
		out = *p
	}
	out.Taken, out.Relayed = s.told(), g.relayed.Load()
	return out
}

func progressOf(p hypervisor.Progress) *nodelink.MoveProgress {
	return &nodelink.MoveProgress{
		Stage: string(p.Stage), MemoryMoved: p.MemoryMoved, MemoryRemaining: p.MemoryRemaining, DisksMoved: p.DisksMoved, DisksRemaining: p.DisksRemaining,
		Rate: p.Rate, DirtyRate: p.DirtyRate, ExpectedDowntimeMS: p.ExpectedDowntime.Milliseconds(), DowntimeMS: p.Downtime.Milliseconds(), TotalMS: p.Total.Milliseconds(),
		Round: p.Round, Throttle: p.Throttle, Warm: warmthOf(p.Warm),
	}
}

// awaitVerdict waits until a move that was sent is settled, for a little longer than the
// target has for that: if it cannot say so itself, the control plane has to ask it.
func (a *Agent) awaitVerdict(ctx context.Context, g *guest, c *nodelink.SendVM) (any, error) {
	ctx, cancel := a.withinTime(ctx, a.patience()*3/2)
	defer cancel()
	set, _ := g.settlingOf(c.Operation)
	select {
	case <-set.done:
		return g.reply(g.verdict(c.Operation)), nil
	case <-a.life.Done():
		return nil, errs.New(errs.NodeUnreachable, "the agent ends")
	case <-ctx.Done():
		return nil, errs.New(errs.Timeout, "VM %s was sent, and it is not settled yet whose it is", c.VM).Because(ctx.Err())
	}
}

// wordEvery spaces tries to hear the target's verdict.
const wordEvery = 200 * time.Millisecond

// hear asks the target for its verdict until it has it, and carries it out. One that is on
// record is not asked for again, and nothing of a move that the record has no more.
func (a *Agent) hear(ctx context.Context, g *guest, m move, set *settling) {
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-set.done: // the control plane has brought it
			cancel()
		case <-stop.Done():
		}
	}()
	told := false
	for stop.Err() == nil {
		is := g.snapshot().Move
		if !is.of(m.Migration) {
			return
		}
		v, err := is.Verdict, error(nil)
		if v == nodelink.Undecided {
			v, err = a.hearOnce(stop, m)
		}
		if err == nil && v != nodelink.Undecided {
			if err = a.conclude(ctx, g, m, v, set); err == nil {
				return
			}
		}
		if err != nil && !told && stop.Err() == nil {
			a.log.Warn("a guest was sent to another node, and waits halted for what became of it; it is asked again", "vm", g.snapshot().VM, "node", m.Peer, "error", err)
			told = true
		}
		_ = a.cfg.Clock.Sleep(stop, wordEvery)
	}
}

func (a *Agent) hearOnce(ctx context.Context, m move) (nodelink.Verdict, error) {
	c, err := a.cfg.Neighbours.Reach(ctx, Way{Node: m.Peer, Address: m.Address, Ticket: m.Ticket, Name: streamWord})
	if err != nil {
		return nodelink.Undecided, err
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := tellWord(c, word{Migration: m.Migration}); err != nil {
		return nodelink.Undecided, err
	}
	w, err := hearWord(c)
	if err == nil && w.Migration != m.Migration {
		err = errs.New(errs.Conflict, "the other node speaks of another move")
	}
	return w.Verdict, err
}

// settleSource carries out a verdict that the control plane brings.
func (a *Agent) settleSource(ctx context.Context, g *guest, m move, v nodelink.Verdict) (any, error) {
	is, alive, err := a.live(ctx, g.snapshot().VM)
	switch {
	case err != nil:
		return nil, err
	case m.State == moveSending && !(alive && is.Reason == hypervisor.SentAway): // nobody sends any more, and it has gone on
		return g.reply(nodelink.Abandoned), g.change(a.records, func(r *record) { r.Move = nil })
	case m.State == moveSettled:
		v = m.Verdict // and not carried out yet
	case v == nodelink.Undecided:
		return g.reply(v), nil
	}
	set, _ := g.settlingOf(m.Migration)
	if err := a.conclude(ctx, g, m, v, set); err != nil {
		return nil, err
	}
	return g.reply(g.verdict(m.Migration)), nil
}

// conclude carries a verdict out at the source, once. It is on the disk first.
func (a *Agent) conclude(ctx context.Context, g *guest, m move, v nodelink.Verdict, set *settling) error {
	set.acting.Lock()
	defer set.acting.Unlock()
	select {
	case <-set.done:
		return nil
	default:
	}
	if !set.carried {
		if err := a.carryOut(ctx, g, m, v); err != nil {
			return err
		}
		set.carried = true
	}
	if err := a.paid(g, m.Migration); err != nil {
		return err
	}
	set.end(v)
	return nil
}

// carryOut writes a verdict down and does what follows from it; nothing once the record is
// not of its move any more.
func (a *Agent) carryOut(ctx context.Context, g *guest, m move, v nodelink.Verdict) error {
	m.State, m.Verdict, m.Owed = moveSettled, v, true
	is := false
	err := g.change(a.records, func(r *record) {
		if is = r.Move.of(m.Migration); !is {
			return
		}
		if v != nodelink.Abandoned {
			r.PowerOn, r.Machine = false, nil
		}
		r.Move = &m
	})
	switch {
	case err != nil || !is:
		return err
	case v == nodelink.Abandoned:
		return a.goOn(ctx, g, m)
	}
	return a.killSent(ctx, g, m)
}

// killSent ends a guest that is another node's.
func (a *Agent) killSent(ctx context.Context, g *guest, m move) error {
	_, err := a.driver.Kill(ctx, hypervisor.Ref{VM: g.snapshot().VM, Epoch: m.Epoch})
	return err
}

// goOn lets a guest execute again that was sent for nothing. One that has no process any
// more has ended, and is started with its host, if that is what it ended with.
func (a *Agent) goOn(ctx context.Context, g *guest, m move) error {
	r := hypervisor.Ref{VM: g.snapshot().VM, Epoch: m.Epoch}
	s, alive, err := a.live(ctx, r.VM)
	switch {
	case err != nil:
		return err
	case !alive || s.Epoch != r.Epoch:
		a.background(func(ctx context.Context) { a.startWithHost(ctx, g) })
		return nil
	}
	switch err := a.owned(g.snapshot(), m.Epoch); {
	case errs.Is(err, errs.StaleEpoch):
		return a.disown(ctx, r, err)
	case err != nil:
		return err
	}
	_, err = a.driver.Resume(ctx, r)
	if err == nil && m.Paused {
		_, err = a.driver.Pause(ctx, r)
	}
	return err
}

// askMove tells how far a move is.
func (a *Agent) askMove(_ context.Context, _ Peer, c *nodelink.AskMove) (any, error) {
	g := a.guest(c.VM)
	out := g.progress(c.Migration)
	a.goes(g, c.Migration, &out)
	return out, nil
}
