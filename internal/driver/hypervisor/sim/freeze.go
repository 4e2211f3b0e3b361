package sim

import (
	"context"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.Freezer = (*Driver)(nil)

// Glance implements contract.Guester.
func (d *Driver) Glance(ctx context.Context, r contract.Ref) (contract.Glance, error) {
	is, err := d.Guest(ctx, r)
	if err != nil {
		return contract.Glance{Agent: is.Agent}, err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.booted(r)
	if err != nil {
		return contract.Glance{Agent: is.Agent}, err
	}
	out := contract.Glance{Agent: is.Agent, Frozen: g.frozen}
	if is.Agent == contract.AgentConnected && !g.frozen {
		out.Told, out.Interfaces = true, is.Interfaces
	}
	return out, nil
}

// Freeze implements contract.Freezer. A simulated guest has one file system.
func (d *Driver) Freeze(_ context.Context, r contract.Ref) (int, error) {
	err := d.ice(r, func(g *guest) error {
		if g.frozen {
			return errs.New(errs.InvalidState, "the file systems in the guest of VM %s are frozen already", r.VM)
		}
		g.frozen = true
		return nil
	})
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// Thaw implements contract.Freezer.
func (d *Driver) Thaw(_ context.Context, r contract.Ref) error {
	return d.ice(r, func(g *guest) error {
		g.frozen = false
		return nil
	})
}

// ice changes a guest whose agent answers.
func (d *Driver) ice(r contract.Ref, change func(*guest) error) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.booted(r)
	if err != nil {
		return err
	}
	if g.status.Phase == vm.PhasePaused {
		return errs.New(errs.GuestAgent, "the agent in the guest of VM %s cannot answer: the VM is paused", r.VM)
	}
	if err := d.host.faultsOf(r.VM).Agent.take("ask the guest's agent"); err != nil {
		return err
	}
	return change(g)
}
