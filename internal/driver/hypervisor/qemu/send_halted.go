package qemu

import (
	"context"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// trackedSince is the first version of QEMU that sees all that emulated processors write
// while memory is sent. Those before it begin each round without telling the processors,
// who go on writing to pages that they know to be written to already: what they write is
// not sent, and the guest goes on without it at its target.
const trackedSince = 9

// tracked tells whether QEMU sees all that the guest writes while its memory is sent. The
// version that counts is of the process, which may be older than what is installed.
func (g *guest) tracked(ctx context.Context) (bool, error) {
	if g.rec.Accel != "tcg" || g.d.opt.TrustEmulation {
		return true, nil
	}
	var is struct {
		QEMU struct {
			Major int `json:"major"`
		} `json:"qemu"`
	}
	err := g.tell(ctx, "query-version", nil, &is)
	return is.QEMU.Major >= trackedSince, err
}

// haltUntracked halts a guest before its memory is sent, if it cannot go on meanwhile. All of
// that is its end, then, and takes no longer than the patience.
func (m *move) haltUntracked(ctx context.Context) (context.Context, context.CancelFunc, error) {
	sees, err := m.g.tracked(ctx)
	sees = sees && !m.options.Warm
	if err != nil || sees {
		return ctx, func() {}, err
	}
	m.untracked = true
	m.report(contract.StageSwitchover)
	patient, cancel := m.patient(ctx)
	if err := m.g.tell(ctx, "stop", nil, nil); err != nil {
		cancel()
		return ctx, nil, err
	}
	return patient, cancel, nil
}

// patient is for what the guest is halted for: as long as the patience, in all.
func (m *move) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	now := m.g.d.opt.Clock.Boot()
	if m.halted == 0 {
		m.halted = now
	}
	return m.g.d.within(ctx, m.options.Patience-(now-m.halted))
}

// late words an error that came because the patience was over.
func (m *move) late(ctx context.Context, err error) error {
	if ctx.Err() != nil || m.halted == 0 || m.g.d.opt.Clock.Boot()-m.halted < m.options.Patience {
		return err
	}
	return errs.New(errs.HostFailure, "the end of the move of VM %s took longer than %s, and it goes on here: give it more patience, or a faster network", m.g.ref.VM, m.options.Patience).Because(err)
}
