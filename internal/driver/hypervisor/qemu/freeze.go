package qemu

import (
	"context"
	"errors"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qga"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.Freezer = (*Driver)(nil)

// Glance implements contract.Guester.
func (d *Driver) Glance(ctx context.Context, r contract.Ref) (contract.Glance, error) {
	out := contract.Glance{Agent: contract.AgentAbsent}
	g, err := d.started(r)
	if err != nil {
		return out, err
	}
	out.Agent, err = g.looked(ctx, func(ctx context.Context, c talk) {
		// not each knows each question: one that does not know this one freezes nothing
		if out.Frozen, _ = c.Frozen(ctx); out.Frozen {
			return
		}
		faces, err := c.Interfaces(ctx)
		out.Told = err == nil
		for _, i := range faces {
			out.Interfaces = append(out.Interfaces, contract.GuestInterface(i))
		}
	})
	return out, err
}

// Freeze implements contract.Freezer.
func (d *Driver) Freeze(ctx context.Context, r contract.Ref) (int, error) {
	n := 0
	err := d.asked(ctx, r, func(ctx context.Context, c talk) error {
		frozen, err := c.Frozen(ctx)
		if err == nil && frozen {
			return errs.New(errs.InvalidState, "the file systems in the guest of VM %s are frozen already", r.VM)
		}
		if err == nil {
			n, err = c.Freeze(ctx)
		}
		if err == nil && n == 0 {
			return errs.New(errs.GuestAgent, "the guest of VM %s has no file system that can be frozen", r.VM)
		}
		return err
	})
	return n, err
}

// Thaw implements contract.Freezer.
func (d *Driver) Thaw(ctx context.Context, r contract.Ref) error {
	return d.asked(ctx, r, func(ctx context.Context, c talk) error {
		ctx, cancel := d.within(ctx, 2*answerTime)
		defer cancel()
		return c.Thaw(ctx)
	})
}

// asked has one conversation with the agent of a live machine, and words its failure.
func (d *Driver) asked(ctx context.Context, r contract.Ref, ask func(context.Context, talk) error) error {
	g, err := d.started(r)
	if err != nil {
		return err
	}
	if g.Status().Phase == vm.PhasePaused {
		return errs.New(errs.GuestAgent, "the agent in the guest of VM %s cannot answer: the VM is paused", r.VM)
	}
	there, err := g.agentThere(ctx)
	if err != nil {
		return err
	}
	if !there {
		return noAgent(r)
	}
	c, err := g.talk(ctx, answerTime)
	if err == nil {
		err = ask(ctx, c)
		c.close()
	}
	var refused *qga.Error
	switch {
	case err == nil, errs.Is(err, errs.InvalidState), errs.Is(err, errs.Conflict), errs.Is(err, errs.GuestAgent):
		return err
	case errors.As(err, &refused):
		return errs.New(errs.GuestAgent, "the agent in the guest of VM %s refused: %s", r.VM, errs.Clip(refused.Desc)).Because(err)
	case ctx.Err() != nil && d.life.Err() == nil:
		return errs.New(errs.Timeout, "the agent in the guest of VM %s was not done in time", r.VM).Because(err)
	default:
		return errs.New(errs.GuestAgent, "the agent in the guest of VM %s does not answer", r.VM).Because(err)
	}
}

func noAgent(r contract.Ref) error {
	return errs.New(errs.GuestAgent, "there is no agent in the guest of VM %s: install qemu-guest-agent there", r.VM)
}
