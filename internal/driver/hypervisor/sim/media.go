package sim

import (
	"context"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.MediaChanger = (*Driver)(nil)

func mediumOf(m contract.Machine) string {
	if m.Medium == nil {
		return ""
	}
	return m.Medium.ID
}

// ChangeMedium implements contract.MediaChanger.
func (d *Driver) ChangeMedium(ctx context.Context, r contract.Ref, m *contract.Medium, force bool) error {
	if m != nil {
		if err := m.Validate(); err != nil {
			return err
		}
	}
	return d.changes(ctx, r, func(g *guest) error {
		want := mediumOf(contract.Machine{Medium: m})
		if err := d.host.mayChange(g, want, force); err != nil {
			return err
		}
		g.medium = want
		return nil
	})
}

// mayChange refuses what a guest, or the lack of a drive, does not let happen. It is
// called with h.mu held.
func (h *Host) mayChange(g *guest, want string, force bool) error {
	v := g.status.VM
	switch {
	case !g.drive:
		return errs.New(errs.Unsupported, "VM %s was started without a drive whose medium changes: it has one when it starts again", v)
	case g.medium == "" || g.medium == want || force || !h.faultsOf(v).HoldMedium:
		return nil
	case g.status.Phase == vm.PhasePaused:
		return errs.New(errs.InUse, "the guest has the CD in its drive in use, and cannot give it back as its VM is paused: resume that, or take the CD by force")
	default:
		return errs.New(errs.InUse, "the guest keeps the CD in its drive, which it has in use: unmount it there, or eject it by force")
	}
}

// Medium implements contract.MediaChanger.
func (d *Driver) Medium(_ context.Context, r contract.Ref) (string, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.booted(r)
	if err != nil {
		return "", err
	}
	return g.medium, nil
}

// Medium tells what is in a live guest's drive; false where there is no guest.
func (h *Host) Medium(v id.ID) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.guests[v]
	if !ok || !g.status.Phase.OnNode() {
		return "", false
	}
	return g.medium, true
}
