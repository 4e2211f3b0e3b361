package sim

import (
	"context"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.Limiter = (*Driver)(nil)

// Limit implements contract.Limiter: the guest remembers its limits.
func (d *Driver) Limit(ctx context.Context, r contract.Ref, l contract.Limits) error {
	return d.changes(ctx, r, func(g *guest) error {
		var m contract.Machine
		m.Ref = r
		for disk := range g.disks {
			m.Disks = append(m.Disks, contract.Disk{ID: disk})
		}
		if err := m.ValidateLimits(l); err != nil {
			return err
		}
		g.limits = l
		return nil
	})
}

// Limits tells what a live guest is limited to; false where there is none.
func (h *Host) Limits(v id.ID) (contract.Limits, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.guests[v]
	if !ok || !g.status.Phase.OnNode() {
		return contract.Limits{}, false
	}
	return g.limits, true
}
