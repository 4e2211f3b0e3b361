package qemu

import (
	"context"
	"errors"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
)

// sentAway tells whether the guest was sent to another host, and nobody has told it since
// to go on.
func (g *guest) sentAway() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked.Send != nil && g.asked.Send.Sent
}

// here is live for what only a guest of this host can do, though it has not started yet.
func (d *Driver) here(r contract.Ref) (*guest, error) {
	g, err := d.live(r)
	if err == nil && (g.Status().Phase == vm.PhaseIncoming || g.sentAway()) {
		return d.started(r)
	}
	return g, err
}

// commanded is started for what is right for a guest that has moved, too: to take it over
// at its target, and to let it go on at its source. Moved tells that its disks change
// hands by the command.
func (d *Driver) commanded(ctx context.Context, r contract.Ref, to vm.Phase) (g *guest, moved bool, err error) {
	if g, err = d.live(r); err != nil {
		return nil, false, err
	}
	switch {
	case g.Status().Phase == vm.PhaseIncoming:
		return g, to == vm.PhaseRunning, g.takeOver(ctx)
	case g.sentAway() && to == vm.PhaseRunning:
		return g, true, g.noteSend(nil)
	case g.sentAway():
		return g, false, nil
	}
	g, err = d.started(r)
	return g, false, err
}

// reallyLocked halts a guest again that has come to execute without the locks of its
// disks.
func (g *guest) reallyLocked(ctx context.Context) error {
	err := assertLocked(g.rec.Machine)
	if err != nil {
		err = errors.Join(err, g.ask(ctx, "stop"))
	}
	return err
}

// carryOut gives a command to a guest, whose disks may change hands by it.
func (g *guest) carryOut(ctx context.Context, name string, moved bool) error {
	err := g.ask(ctx, name)
	if err == nil && moved {
		err = g.reallyLocked(ctx)
	}
	if err == nil && moved {
		g.d.background(g.announce) // the network took it to be where it was not
	}
	g.refresh(ctx)
	return err
}
