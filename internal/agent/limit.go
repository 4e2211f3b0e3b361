package agent

import (
	"context"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// setLimits changes the record first: what the node starts by itself after a reboot
// has them, whatever becomes of the guest that is there now.
func (a *Agent) setLimits(ctx context.Context, _ Peer, g *guest, c *nodelink.SetLimits) (any, error) {
	err := g.change(a.records, func(r *record) {
		if r.Machine != nil {
			m := *r.Machine
			m.Limits = c.Limits
			r.Machine = &m
		}
	})
	if err != nil {
		return nil, err
	}
	s, alive, err := a.live(ctx, c.VM)
	if err != nil || !alive {
		return nodelink.Done{}, err
	}
	l, ok := a.driver.(hypervisor.Limiter)
	if !ok {
		return nil, errs.New(errs.Unsupported, "this node's hypervisor cannot change the limits of a guest that runs: stop the VM first")
	}
	return nodelink.Done{}, l.Limit(ctx, s.Ref, limits(c.Limits))
}

func limits(l nodelink.Limits) hypervisor.Limits {
	out := hypervisor.Limits{CPUWeight: l.CPUWeight, CPUCapPercent: l.CPUCapPercent}
	for v, d := range l.Disks {
		if out.Disks == nil {
			out.Disks = map[id.ID]hypervisor.DiskLimits{}
		}
		out.Disks[v] = hypervisor.DiskLimits(d)
	}
	return out
}
