package agent

import (
	"context"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// guester gives the driver's ability to speak with guests.
func (a *Agent) guester() (hypervisor.Guester, error) {
	g, ok := a.driver.(hypervisor.Guester)
	if !ok {
		return nil, errs.New(errs.Unsupported, "this node's hypervisor has no line to agents in guests")
	}
	return g, nil
}

func (a *Agent) askGuest(ctx context.Context, _ Peer, c *nodelink.AskGuest) (any, error) {
	d, err := a.guester()
	if err != nil {
		return nil, err
	}
	g, err := d.Guest(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.Epoch})
	if err != nil {
		return nil, err
	}
	out := nodelink.GuestReply{Agent: string(g.Agent), Version: g.Version}
	for _, i := range g.Interfaces {
		one := nodelink.GuestInterface{Name: i.Name, MAC: i.MAC}
		for _, p := range i.Addresses {
			one.Addresses = append(one.Addresses, p.String())
		}
		out.Interfaces = append(out.Interfaces, one)
	}
	for _, f := range g.FileSystems {
		out.FileSystems = append(out.FileSystems, nodelink.GuestFileSystem(f))
	}
	if g.Memory != nil {
		m := nodelink.GuestMemory(*g.Memory)
		out.Memory = &m
	}
	return out, nil
}

func (a *Agent) runInGuest(ctx context.Context, _ Peer, c *nodelink.RunInGuest) (any, error) {
	d, err := a.guester()
	if err != nil {
		return nil, err
	}
	a.log.Info("a program is run in a guest", "vm", c.VM, "program", c.Path)
	out, err := d.Run(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.Epoch}, hypervisor.Program{
		Path: c.Path, Args: c.Args, Input: c.Input, Time: time.Duration(c.TimeMS) * time.Millisecond,
	})
	return nodelink.RunReply(out), err
}
