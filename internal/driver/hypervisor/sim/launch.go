package sim

import (
	"context"
	"os"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Launch implements contract.Driver.
func (d *Driver) Launch(ctx context.Context, m contract.Machine) (contract.Status, error) {
	if err := m.Validate(); err != nil {
		return contract.Status{}, err
	}
	if err := ready(m); err != nil {
		return contract.Status{}, err
	}
	if err := mayJoin(m); err != nil {
		return contract.Status{}, err
	}
	if err := checkSaved(m); err != nil && !d.runs(m.Ref) {
		return contract.Status{}, err
	}
	ctx, leave, err := d.begin(ctx, m.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	h := d.host
	h.mu.Lock()
	g, running, err := h.prepare(m)
	if err != nil {
		h.mu.Unlock()
		return contract.Status{}, err
	}
	hang := h.faultsOf(m.VM).HangLaunch
	s := g.status
	h.mu.Unlock()
	if running {
		return s, nil
	}
	h.flush()
	if err := d.startUp(ctx, g, hang); err != nil {
		return contract.Status{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot(g, m), nil
}

// Bridge is the one bridge of a simulated host.
const Bridge = "br0"

func mayJoin(m contract.Machine) error {
	for _, n := range m.NICs {
		if n.Bridge != "" && n.Bridge != Bridge {
			return errs.New(errs.Unsupported, "this node does not let guests onto bridge %q", errs.Clip(n.Bridge))
		}
	}
	return nil
}

// runs tells whether an incarnation is there already.
func (d *Driver) runs(r contract.Ref) bool {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, ok := d.host.guests[r.VM]
	return ok && g.status.Ref == r && g.status.Phase.OnNode()
}

// prepare makes the guest of a new incarnation, or gives the one that runs. It is
// called with h.mu held.
func (h *Host) prepare(m contract.Machine) (g *guest, running bool, err error) {
	if old, ok := h.guests[m.VM]; ok {
		running, err := mayLaunch(m.Ref, old.status)
		if running || err != nil {
			return old, running, err
		}
		if old.status.Phase.OnNode() { // half launched by an agent that died
			h.free(old)
			h.forget(m.VM)
		}
	}
	if err := h.faultsOf(m.VM).Launch.take("launch"); err != nil {
		return nil, false, err
	}
	ports, err := h.claim(m)
	if err != nil {
		return nil, false, err
	}
	g = &guest{
		status: contract.Status{Ref: m.Ref},
		ports:  ports,
		disks:  disksOf(m),
		limits: m.Limits,
		drive:  m.Drive,
		medium: mediumOf(m),
		serial: serial.NewRing(logKeep),
		fixed:  map[id.ID]bool{}, arrived: make(chan struct{}),
	}
	for _, k := range m.Disks {
		g.fixed[k.ID] = !k.Moves()
	}
	g.done, g.stop = context.WithCancel(h.life)
	h.guests[m.VM] = g
	h.change(g, vm.PhaseStarting, "")
	return g, false, nil
}

// mayLaunch compares what is wanted with the last incarnation.
func mayLaunch(r contract.Ref, last contract.Status) (running bool, err error) {
	switch {
	case last.Phase == vm.PhaseIncoming && last.Epoch == r.Epoch:
		return false, contract.ErrNotArrived(r.VM)
	case last.Phase.OnNode() && last.Epoch == r.Epoch:
		return last.Phase != vm.PhaseStarting, nil
	case last.Phase.OnNode() && last.Epoch < r.Epoch:
		return false, errs.New(errs.InvalidState, "VM %s still runs under owner epoch %d: kill it first", r.VM, last.Epoch)
	case r.Epoch < last.Epoch:
		return false, stale(r, last)
	case r.Epoch == last.Epoch:
		return false, errs.New(errs.InvalidState,
			"VM %s has already run and ended under owner epoch %d: release it or raise the epoch", r.VM, r.Epoch)
	}
	return false, nil
}

// claim takes the host ports of a machine, all or none.
func (h *Host) claim(m contract.Machine) ([]port, error) {
	var got []port
	for _, n := range m.NICs {
		for _, f := range n.Forwards {
			addr, err := f.Host()
			if err != nil {
				return nil, err
			}
			p := port{f.Protocol, addr}
			if _, taken := h.ports[p]; taken {
				for _, q := range got {
					delete(h.ports, q)
				}
				return nil, errs.New(errs.InUse, "port %s/%s of this node is taken", addr, f.Protocol)
			}
			h.ports[p] = m.VM
			got = append(got, p)
		}
	}
	return got, nil
}

// startUp lets the launch take its time. When that fails, nothing of the
// incarnation is left, unless the agent itself died: then it stays as it is.
func (d *Driver) startUp(ctx context.Context, g *guest, hang bool) error {
	h, v := d.host, g.status.VM
	var err error
	if hang {
		<-ctx.Done()
		err = ctx.Err()
	} else {
		err = h.wait(ctx, v, TransitionLaunch)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.guests[v] == g && g.status.Phase == vm.PhaseStarting {
		return nil
	}
	if d.dead() {
		return errDead()
	}
	reason := g.status.Reason
	if h.guests[v] == g {
		h.change(g, vm.PhaseExited, "did not start")
		h.forget(v)
	}
	if err != nil {
		return errs.New(errs.Timeout, "the guest of VM %s did not start in time", v).Because(err)
	}
	return errs.New(errs.HostFailure, "the process of VM %s ended while it started: %s", v, reason)
}

// boot lets the guest execute. It is called with h.mu held.
func (h *Host) boot(g *guest, m contract.Machine) contract.Status {
	if m.Incoming == "" {
		_, _ = g.serial.Write([]byte(bootLines(m, h.opt.Clock.Now())))
	} else {
		_ = os.Remove(m.Incoming)
	}
	close(g.arrived)
	h.change(g, vm.PhaseRunning, "")
	started := g.status
	if h.faultsOf(m.VM).CrashAfterLaunch {
		h.change(g, vm.PhaseCrashed, "killed by signal 11")
	}
	return started
}

// obey lets a guest act on the power button, now or after its latency. It is
// called with h.mu held.
func (h *Host) obey(g *guest) {
	v := g.status.VM
	if h.instant(TransitionShutdown) {
		h.powerOff(g)
		return
	}
	if g.obeying {
		return
	}
	g.obeying = true
	go func() {
		if h.wait(g.done, v, TransitionShutdown) != nil {
			return
		}
		h.mu.Lock()
		g.obeying = false
		h.powerOff(g)
		h.mu.Unlock()
		h.flush()
	}()
}

// powerOff ends a guest that executes and listens to its power button.
func (h *Host) powerOff(g *guest) {
	if g.status.Phase == vm.PhaseStopping && !h.faultsOf(g.status.VM).IgnoreShutdown {
		h.change(g, vm.PhaseExited, "guest powered off")
	}
}
