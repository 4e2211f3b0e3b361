package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// sendRecord is a move to another host, under way or at its end, in asked.json.
type sendRecord struct {
	Migration id.ID `json:"migration"`
	// Paused: was the guest halted before?
	Paused bool `json:"paused,omitempty"`
	// Sent: has the target everything?
	Sent bool `json:"sent,omitempty"`
}

// Send implements contract.Migrator.
func (d *Driver) Send(ctx context.Context, r contract.Ref, to contract.Landing, dial contract.Dial, progress func(contract.Progress)) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	if g, err := d.live(r); err == nil && g.wasSent(to.Migration) {
		return g.Status(), nil
	}
	g, dep, err := d.maySend(ctx, r, to)
	if err != nil {
		return contract.Status{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := g.beginSend(to.Migration, cancel); err != nil {
		return contract.Status{}, err
	}
	m := &move{g: g, departed: dep, to: to, began: d.opt.Clock.Boot(), tell: progress}
	as, err := dep.client(to)
	if err == nil {
		m.streams, err = g.openStreams(ctx, as, dial)
	}
	if err == nil {
		err = m.run(ctx)
		m.streams.close() // whatever hangs on them ends
	}
	if d.dead() {
		return contract.Status{}, errClosed() // left as it is, for the next agent
	}
	return g.endSend(ctx, m, err)
}

// wasSent tells whether a move has come to its end.
func (g *guest) wasSent(migration id.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked.Send != nil && g.asked.Send.Sent && g.asked.Send.Migration == migration
}

// sending tells whether a move has begun and has not come to its end.
func (g *guest) sending() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked.Send != nil && !g.asked.Send.Sent
}

// maySend gives the guest of a move that begins, and how it departed.
func (d *Driver) maySend(ctx context.Context, r contract.Ref, to contract.Landing) (*guest, *departed, error) {
	g, err := d.movable(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	g.mu.Lock()
	dep := g.departed
	g.mu.Unlock()
	switch {
	case to.Ref.VM != r.VM || to.Ref.Epoch <= r.Epoch:
		return nil, nil, errs.New(errs.InvalidField, "VM %s cannot land as VM %s under owner epoch %d", r.VM, to.Ref.VM, to.Ref.Epoch)
	case dep == nil || dep.Migration != to.Migration:
		return nil, nil, errs.New(errs.InvalidState, "VM %s has not departed for this move: begin it anew", r.VM)
	}
	return g, dep, nil
}

// beginSend remembers, first on disk, that a move is under way, and how it is broken off.
func (g *guest) beginSend(migration id.ID, breakOff context.CancelFunc) error {
	paused := g.Status().Phase == vm.PhasePaused
	if err := g.noteSend(&sendRecord{Migration: migration, Paused: paused}); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breakOff = breakOff
	return nil
}

// noteSend remembers, on disk, the move to another host; nil for none.
func (g *guest) noteSend(s *sendRecord) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	asked.Send = s
	if err := g.write(askedFile, asked); err != nil {
		return err
	}
	g.asked = asked
	return nil
}

// breakSend ends a move under way, for who is to have the VM's turn now.
func (d *Driver) breakSend(r contract.Ref) {
	g := d.guest(r.VM)
	if g == nil || g.ref != r {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.breakOff != nil {
		g.breakOff()
	}
}

// endSend brings a move to its end: what QEMU says of it counts.
func (g *guest) endSend(ctx context.Context, m *move, cause error) (contract.Status, error) {
	g.mu.Lock()
	g.breakOff = nil
	g.mu.Unlock()
	s, sent := g.settleSend(ctx)
	v := g.ref.VM
	switch {
	case sent:
		m.finish()
		return s, nil
	case !s.Phase.OnNode():
		return contract.Status{}, errs.New(errs.InvalidState, "VM %s ended while it was moved: %s", v, s.Reason).Because(cause)
	case ctx.Err() != nil:
		return contract.Status{}, errs.New(errs.Cancelled, "the move of VM %s was broken off, and it goes on here", v).Because(cause)
	case errs.CodeOf(cause) == errs.Internal || cause == nil:
		return contract.Status{}, errs.New(errs.HostFailure, "the move of VM %s failed, and it goes on here; the node's log has the reason", v).Because(cause)
	}
	return contract.Status{}, cause
}

// settleSend makes of a move that nobody drives any more what it is: the guest was sent,
// and stays halted, or it goes on as it was, with no trace of the move.
func (g *guest) settleSend(ctx context.Context) (s contract.Status, sent bool) {
	ctx, cancel := g.d.within(context.WithoutCancel(ctx), takeBackTime)
	defer cancel()
	ctx, stop := g.untilEnd(ctx)
	defer stop()
	c, err := g.monitor()
	if err == nil {
		sent, err = g.verdict(ctx, c)
	}
	if err == nil {
		err = g.forgetMove(ctx)
	}
	if err == nil && sent {
		if e := g.noteSent(); e != nil {
			// nobody was told that it was sent: its target never executes
			g.d.log.Error("a guest was sent to another host, which cannot be written down: it goes on here", "vm", g.ref.VM, "error", e)
			sent = false
		}
	}
	if err == nil && !sent {
		err = g.goOnHere(ctx)
	}
	g.refresh(context.WithoutCancel(ctx))
	if err != nil && g.Status().Phase.OnNode() {
		g.d.log.Error("a move to another host could not be settled", "vm", g.ref.VM, "error", err)
		sent = false
	}
	g.d.out.Flush()
	return g.Status(), sent
}

// verdict ends a migration that is under way, and tells whether it had come to its end.
func (g *guest) verdict(ctx context.Context, c *qmp.Client) (sent bool, err error) {
	if err := g.cancelMigration(ctx, c); err != nil {
		return false, err
	}
	var m migration
	var is string
	if err = c.Execute(ctx, "query-migrate", nil, &m); err == nil {
		is, err = runState(ctx, c)
	}
	if m.Status == "failed" || m.Status == "cancelled" {
		g.d.log.Warn("the move of a guest failed", "vm", g.ref.VM, "status", m.Status, "reason", m.Desc)
	}
	return m.Status == "completed" && is == "postmigrate", err
}

func (g *guest) noteSent() error {
	g.mu.Lock()
	was := *g.asked.Send
	g.departed = nil
	g.mu.Unlock()
	was.Sent = true
	return g.noteSend(&was)
}

// goOnHere lets a guest execute again that the move has halted.
func (g *guest) goOnHere(ctx context.Context) error {
	g.mu.Lock()
	paused := g.asked.Send.Paused
	g.mu.Unlock()
	c, err := g.monitor()
	if err != nil {
		return err
	}
	is, err := runState(ctx, c)
	if err == nil && !paused && (is == "postmigrate" || is == "paused") {
		err = c.Execute(ctx, "cont", nil, nil)
	}
	if err != nil {
		return err
	}
	if err := g.noteSend(nil); err != nil {
		// what is written is of a guest that executes: whoever reads it lets it go on
		g.d.log.Error("that a guest goes on here cannot be written down", "vm", g.ref.VM, "error", err)
		g.mu.Lock()
		g.asked.Send = nil
		g.mu.Unlock()
	}
	return nil
}

// forgetMove removes from QEMU all that a move has brought.
func (g *guest) forgetMove(ctx context.Context) error {
	if err := g.dropMirrors(ctx); err != nil {
		return err
	}
	return g.tellMigration(ctx, noCapabilities(), object{"max-bandwidth": saveRate})
}

// move is a send under way.
type move struct {
	g *guest
	*departed
	to      contract.Landing
	streams *streams
	began   time.Duration
	at      contract.Progress
	// halted is when its guest was halted, or is about to be, by the clock of leases; 0 while
	// it is not. Untracked: was that before its memory was sent?
	halted    time.Duration
	untracked bool
	// warmth is of a warm one.
	warmth contract.Warmth
	tell   func(contract.Progress)
}

// run brings everything to the target.
func (m *move) run(ctx context.Context) error {
	ctx, cancel := m.g.untilEnd(ctx)
	defer cancel()
	disks := m.mirror
	if m.options.Warm {
		disks = m.warm
	} else {
		m.report(contract.StageDisks)
	}
	err := m.g.tellMigration(ctx, sendCapabilities(m.Channels > 0), sendParameters(m.options))
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{disks, m.memory, m.switchOver} {
		if err := step(ctx); err != nil {
			return m.late(ctx, errors.Join(err, context.Cause(ctx)))
		}
	}
	return nil
}

// memory sends memory until QEMU has halted the guest for the rest.
func (m *move) memory(ctx context.Context) error {
	if m.halted == 0 {
		m.report(contract.StageMemory)
	}
	// before the target hears of memory: it answers for disks no more until the channels speak
	ctx, done, err := m.haltUntracked(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := m.streams.prepare(contract.StreamMemory, 1+m.Channels); err != nil {
		return err
	}
	if err := m.g.tell(ctx, "migrate", object{"uri": "unix:" + m.g.seen(string(contract.StreamMemory))}, nil); err != nil {
		return err
	}
	for {
		there, err := m.until(ctx, "pre-switchover")
		if err != nil || there {
			return err
		}
		if err := m.mirrorsLive(ctx); err != nil {
			return err
		}
		m.report(m.at.Stage)
		if err := m.g.nudged(ctx); err != nil {
			return err
		}
	}
}

// switchOver sends the rest of a guest that is halted. It may take no longer than what is
// left of the patience with it.
func (m *move) switchOver(ctx context.Context) error {
	ctx, cancel := m.patient(ctx)
	defer cancel()
	m.report(contract.StageSwitchover)
	if err := m.finishMirrors(ctx); err != nil {
		return err
	}
	if err := m.g.tell(ctx, "migrate-continue", object{"state": "pre-switchover"}, nil); err != nil {
		return err
	}
	for {
		there, err := m.until(ctx, "completed")
		if err != nil || there {
			return err
		}
		if err := m.g.nudged(ctx); err != nil {
			return err
		}
	}
}

// until tells whether the migration has come to a status, and fails when it ended.
func (m *move) until(ctx context.Context, want string) (bool, error) {
	status, err := m.look(ctx)
	switch {
	case err != nil:
		return false, err
	case status == want:
		return true, nil
	case status == "failed" || status == "cancelled" || status == "completed":
		return false, fmt.Errorf("the migration is %s instead of %s", status, want)
	}
	return false, nil
}

// look asks how far the migration is.
func (m *move) look(ctx context.Context) (string, error) {
	var is struct {
		migration
		Downtime int64 `json:"downtime"`
		Expected int64 `json:"expected-downtime"`
		RAM      struct {
			Transferred int64   `json:"transferred"`
			Remaining   int64   `json:"remaining"`
			MBps        float64 `json:"mbps"`
			DirtyPages  int64   `json:"dirty-pages-rate"`
			PageSize    int64   `json:"page-size"`
			Round       int64   `json:"dirty-sync-count"`
		} `json:"ram"`
		Throttle int `json:"cpu-throttle-percentage"`
	}
	if err := m.g.tell(ctx, "query-migrate", nil, &is); err != nil {
		return "", err
	}
	m.at.MemoryMoved, m.at.MemoryRemaining = is.RAM.Transferred, is.RAM.Remaining
	m.at.Rate, m.at.DirtyRate = int64(is.RAM.MBps*1e6/8), is.RAM.DirtyPages*is.RAM.PageSize
	m.at.Round, m.at.Throttle = is.RAM.Round, is.Throttle
	if is.Throttle <= idleThrottle {
		m.at.Throttle = 0
	}
	m.at.ExpectedDowntime = time.Duration(is.Expected) * time.Millisecond
	m.at.Downtime = time.Duration(is.Downtime) * time.Millisecond
	if is.Desc != "" {
		return is.Status, fmt.Errorf("the hypervisor says %s: %s", is.Status, is.Desc)
	}
	return is.Status, nil
}

func (m *move) report(s contract.Stage) {
	m.at.Stage, m.at.Total = s, m.g.d.opt.Clock.Boot()-m.began
	if m.tell != nil {
		m.tell(m.at)
	}
}

// finish tells that all is sent.
func (m *move) finish() {
	m.at.MemoryRemaining, m.at.DisksRemaining = 0, 0
	if m.untracked {
		m.at.Downtime = m.g.d.opt.Clock.Boot() - m.halted
	}
	m.report(contract.StageSent)
}

// nudged waits until the hypervisor tells something of a migration or of a job, or until
// it is time to look again.
func (g *guest) nudged(ctx context.Context) error {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-g.nudge:
			cancel()
		case <-g.ended:
			cancel()
		case <-wait.Done():
		}
	}()
	_ = g.d.opt.Clock.Sleep(wait, lookEvery)
	return context.Cause(ctx)
}

// isOfMove tells whether an event is of a migration or of a job.
func isOfMove(event string) bool {
	return event == "MIGRATION" || event == "JOB_STATUS_CHANGE" || strings.HasPrefix(event, "BLOCK_JOB_")
}
