package agent

import (
	"context"
	"maps"
	"slices"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (a *Agent) createVolumes(ctx context.Context, _ Peer, g *guest, c *nodelink.CreateVolumes) (any, error) {
	ids := make([]id.ID, 0, len(c.Volumes))
	for _, v := range c.Volumes {
		ids = append(ids, v.ID)
	}
	if err := a.owns(g, ids); err != nil {
		return nil, err
	}
	return nodelink.Done{}, a.makeVolumes(ctx, g, c.Volumes)
}

// makeVolumes makes volumes that are on the VM's record.
func (a *Agent) makeVolumes(ctx context.Context, g *guest, volumes []nodelink.VolumeSpec) error {
	for _, v := range volumes {
		spec := volume.Spec{ID: v.ID, SizeBytes: v.SizeBytes}
		if v.Base != nil {
			var err error
			if spec.Base, err = a.base(g, v.ID, *v.Base); err != nil {
				return err
			}
		}
		d, err := a.keeps(g.snapshot(), v.ID)
		if err == nil {
			_, err = d.Create(ctx, spec)
		}
		if err == nil {
			err = a.standsAlone(g, v.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// standsAlone notes of a volume in a storage pool that it stands on no image of this node:
// it was made whole.
func (a *Agent) standsAlone(g *guest, v id.ID) error {
	if _, pooled := g.snapshot().Pools[v]; !pooled {
		return nil
	}
	return g.change(a.records, func(r *record) { r.Bases = without(r.Bases, []id.ID{v}) })
}

// owns puts volumes that are about to be made on the VM's record.
func (a *Agent) owns(g *guest, volumes []id.ID) error {
	return g.change(a.records, func(r *record) {
		r.Volumes = slices.Clone(r.Volumes)
		for _, v := range volumes {
			if !slices.Contains(r.Volumes, v) {
				r.Volumes = append(r.Volumes, v)
			}
		}
		r.Erased = r.Erased && len(volumes) == 0
	})
}

// base takes up an image file that a volume is to stand on.
func (a *Agent) base(g *guest, vol id.ID, f nodelink.ImageFile) (*volume.Base, error) {
	a.images.RLock()
	defer a.images.RUnlock()
	path, err := a.cfg.Images.Path(f)
	if err == nil {
		err = g.change(a.records, func(r *record) { r.Bases = with(r.Bases, vol, f) })
	}
	if err != nil {
		return nil, err
	}
	return &volume.Base{File: hypervisor.File{Path: path, Format: f.Format}, VirtualSize: f.VirtualBytes}, nil
}

func with(m map[id.ID]nodelink.ImageFile, k id.ID, f nodelink.ImageFile) map[id.ID]nodelink.ImageFile {
	out := map[id.ID]nodelink.ImageFile{k: f}
	maps.Copy(out, m)
	return out
}

// copyVolumes makes disks from those of a VM that rests: the control plane holds
// it for as long, and this node would not start it by itself. What the originals
// stand on, the copies stand on too, and that is on record before they exist.
func (a *Agent) copyVolumes(ctx context.Context, _ Peer, g *guest, c *nodelink.CopyVolumes) (any, error) {
	s, alive, err := a.live(ctx, c.Source)
	if err != nil {
		return nil, err
	}
	if alive {
		return nil, errs.New(errs.InvalidState, "VM %s is %s on this node: its disks are copied while it has no process", c.Source, s.Phase)
	}
	ids := make([]id.ID, 0, len(c.Volumes))
	for _, v := range c.Volumes {
		ids = append(ids, v.ID)
	}
	if err := a.owns(g, ids); err != nil {
		return nil, err
	}
	source := a.guest(c.Source).snapshot()
	for _, v := range c.Volumes {
		if err := a.copyVolume(ctx, g, source, v); err != nil {
			return nil, err
		}
	}
	return nodelink.Done{}, a.copyVariables(g, c.VM, c.Source)
}

// copyVolume makes one of them, in the same place.
func (a *Agent) copyVolume(ctx context.Context, g *guest, source record, v nodelink.VolumeCopy) error {
	if base, ok := source.Bases[v.From]; ok {
		if _, err := a.base(g, v.ID, base); err != nil {
			return err
		}
	}
	if source.Pools[v.From] != g.snapshot().Pools[v.ID] {
		return errs.New(errs.Unsupported, "volume %s is in another storage pool than its copy is to be, or in none", v.From)
	}
	d, err := a.keeps(source, v.From)
	if err == nil {
		_, err = d.Copy(ctx, v.ID, v.From)
	}
	return err
}

// growVolume has whoever has the volume open make it larger: the guest's
// hypervisor while there is a process, the volume driver otherwise. The VM's turn
// keeps one from coming or going by command meanwhile; one that ends by itself
// fails the step, and the next attempt finds it gone.
func (a *Agent) growVolume(ctx context.Context, _ Peer, g *guest, c *nodelink.GrowVolume) (any, error) {
	s, alive, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	var resize func(context.Context) error
	if alive {
		grower, ok := a.driver.(hypervisor.DiskGrower)
		if !ok || !a.driver.Capabilities().GrowDisk {
			return nil, errs.New(errs.Unsupported, "this node's hypervisor cannot grow a disk while the guest runs: stop the VM first")
		}
		resize = func(ctx context.Context) error { return grower.GrowDisk(ctx, s.Ref, c.Volume, c.SizeBytes) }
	}
	d, err := a.keeps(g.snapshot(), c.Volume)
	if err == nil {
		_, err = d.Grow(ctx, c.Volume, c.SizeBytes, resize)
	}
	return nodelink.Done{}, err
}

func (a *Agent) deleteVolumes(ctx context.Context, _ Peer, g *guest, c *nodelink.DeleteVolumes) (any, error) {
	s, alive, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	if alive {
		return nil, errs.New(errs.InvalidState, "VM %s is %s on this node: its disks stay while it has a process", c.VM, s.Phase)
	}
	rec := g.snapshot()
	for _, v := range c.Volumes {
		if err := a.removeVolume(ctx, rec, v, c.OwnerEpoch); err != nil {
			return nil, err
		}
	}
	// last: what a volume stands on must not go before it
	return nodelink.Done{}, g.change(a.records, func(r *record) {
		r.Bases = without(r.Bases, c.Volumes)
		r.Pools = outOf(r.Pools, c.Volumes)
		r.Volumes = slices.DeleteFunc(slices.Clone(r.Volumes), func(v id.ID) bool { return slices.Contains(c.Volumes, v) })
	})
}

func outOf(m map[id.ID]id.ID, keys []id.ID) map[id.ID]id.ID {
	out := maps.Clone(m)
	for _, k := range keys {
		delete(out, k)
	}
	return out
}

func without(m map[id.ID]nodelink.ImageFile, keys []id.ID) map[id.ID]nodelink.ImageFile {
	out := maps.Clone(m)
	for _, k := range keys {
		delete(out, k)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
