package sim

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/unit"
)

var _ contract.Warmer = (*Driver)(nil)

const (
	// warmTick is how often a warm move looks whether it is to go on.
	warmTick = 5 * time.Millisecond
	// changedBetween is what a simulated guest changes of its disks between two rounds.
	changedBetween = unit.MiB
)

// Cutover implements contract.Warmer.
func (d *Driver) Cutover(_ context.Context, r contract.Ref) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.live(r)
	switch {
	case err != nil:
		return err
	case g.send == nil || g.send.Sent || !g.warm:
		return contract.ErrNotWarm(r.VM)
	}
	g.over = true
	return nil
}

// told tells whether a warm move is to come to its end.
func (m *move) told() bool {
	m.d.host.mu.Lock()
	defer m.d.host.mu.Unlock()
	return m.g.over
}

// warm sends the disks in rounds until it is told to cut over, and then, with the guest
// halted, once more.
func (m *move) warm(ctx context.Context) error {
	m.at.Warm = &contract.Warmth{}
	for over := false; !over; {
		if err := m.warmRound(ctx); err != nil {
			return err
		}
		m.report(contract.StageWarm)
		until := m.d.host.opt.Clock.Boot() + m.interval
		for over = m.told(); !over && m.d.host.opt.Clock.Boot() < until; over = m.told() {
			if err := m.d.host.opt.Clock.Sleep(ctx, warmTick); err != nil {
				return err
			}
		}
	}
	if _, end, err := m.open(ctx, contract.StreamAgain); err == nil { // nobody is halted for a target that is cut off
		end()
	} else if err := m.again(ctx); err != nil {
		return err
	}
	if err := m.halt(); err != nil {
		return err
	}
	m.report(contract.StageSwitchover)
	return m.sendDisks(ctx)
}

// warmRound sends what has changed, over a stream that is opened anew where it breaks.
func (m *move) warmRound(ctx context.Context) error {
	began, w := m.d.host.opt.Clock.Boot(), m.at.Warm
	before := m.at.DisksMoved
	for {
		err := m.sendDisks(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil || contract.TargetGone(err) {
			return err
		}
		w.Cuts++
		if err := m.again(ctx); err != nil {
			return err
		}
	}
	if w.Rounds > 0 {
		m.at.DisksMoved = before + changedBetween
	}
	w.Rounds++
	w.LastBytes, w.LastTook, w.Changed = m.at.DisksMoved-before, m.d.host.opt.Clock.Boot()-began, changedBetween
	return nil
}

// again opens the way to the target anew, for as long as that takes.
func (m *move) again(ctx context.Context) error {
	m.at.Warm.Cut = true
	m.report(contract.StageWarm)
	for {
		if err := m.d.host.opt.Clock.Sleep(ctx, warmTick); err != nil {
			return err
		}
		_, end, err := m.open(ctx, contract.StreamAgain)
		if err == nil {
			m.at.Warm.Cut = false
			end()
			return nil
		}
		if contract.TargetGone(err) {
			return err
		}
	}
}
