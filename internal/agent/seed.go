package agent

import (
	"context"

	"github.com/novacron/novacron/internal/agent/seed"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A VM's seed is a volume of its own that the guest only reads, with the VM's id.
// It is made when it is told what it holds, and stays as it is until it is told
// something else: a reboot of the host, and whatever else starts the VM by this
// node's record, finds it byte for byte.

func (a *Agent) writeSeed(ctx context.Context, _ Peer, _ *guest, c *nodelink.WriteSeed) (any, error) {
	files := make([]seed.File, 0, len(c.Files))
	for _, f := range c.Files {
		files = append(files, seed.File{Name: f.Name, Content: []byte(f.Content)})
	}
	image, err := seed.Image(files)
	if err == nil {
		_, err = a.cfg.Volumes.Write(ctx, c.VM, image)
	}
	return nodelink.Done{}, err
}

// drive gives the CD of a machine that has a seed, or an image of one.
func (a *Agent) drive(ctx context.Context, vm id.ID, m nodelink.Machine) ([]hypervisor.CD, error) {
	if m.CD != nil {
		path, err := a.cfg.Images.Path(*m.CD)
		return []hypervisor.CD{{ID: vm, File: hypervisor.File{Path: path, Format: m.CD.Format}}}, err
	}
	if !m.Seed {
		return nil, nil
	}
	vol, err := a.cfg.Volumes.Inspect(ctx, vm)
	if err != nil {
		return nil, err
	}
	return []hypervisor.CD{{ID: vm, File: vol.File, Private: true}}, nil
}

// dropSeed removes the seed of a VM that has none any more.
func (a *Agent) dropSeed(ctx context.Context, vm id.ID, m nodelink.Machine) error {
	if m.Seed {
		return nil
	}
	if _, err := a.cfg.Volumes.Inspect(ctx, vm); errs.Is(err, errs.NotFound) {
		return nil
	}
	return a.cfg.Volumes.Delete(ctx, vm)
}
