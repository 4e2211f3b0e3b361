package agent

import (
	"context"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// medium is what a machine finds in its drive; nil for nothing.
func (a *Agent) medium(f *nodelink.ImageFile) (*hypervisor.Medium, error) {
	if f == nil || !a.driver.Capabilities().Media {
		return nil, nil
	}
	path, err := a.cfg.Images.Path(*f)
	return &hypervisor.Medium{ID: f.SHA256, File: hypervisor.File{Path: path, Format: f.Format}}, err
}

// setMedium changes the record before the guest where something comes in, and after it
// where something goes out: as long as a file may be in a drive, a record keeps it in the
// cache.
func (a *Agent) setMedium(ctx context.Context, _ Peer, g *guest, c *nodelink.SetMedium) (any, error) {
	a.images.RLock()
	m, err := a.medium(c.Medium)
	if err == nil && c.Medium != nil {
		err = g.setMedium(a.records, c.Medium)
	}
	a.images.RUnlock()
	if err != nil {
		return nil, err
	}
	if err := a.changeMedium(ctx, c, m); err != nil {
		return nil, err
	}
	return nodelink.Done{}, g.setMedium(a.records, c.Medium)
}

// setMedium changes what the node starts by its own record.
func (g *guest) setMedium(keep *records, f *nodelink.ImageFile) error {
	return g.change(keep, func(r *record) {
		if r.Machine != nil {
			m := *r.Machine
			m.Medium = f
			r.Machine = &m
		}
	})
}

// changeMedium changes what is in the drive of a guest that is there.
func (a *Agent) changeMedium(ctx context.Context, c *nodelink.SetMedium, m *hypervisor.Medium) error {
	s, alive, err := a.live(ctx, c.VM)
	if err != nil || !alive {
		return err
	}
	d, ok := a.driver.(hypervisor.MediaChanger)
	if !ok {
		return errs.New(errs.Unsupported, "this node's hypervisor cannot change the CD of a guest that runs: stop the VM first")
	}
	return d.ChangeMedium(ctx, s.Ref, m, c.Force)
}
