package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/pool"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A volume that is in a storage pool can be opened by other nodes, too. Before a process
// here opens it for writing, the node takes its claim under the VM's owner epoch, and lets
// it go when there is no process any more. What a process that died has left held is this
// node's to take again, and to let go before another one has the VM.

// pool gives a storage pool of this node.
func (a *Agent) pool(p id.ID) (*pool.Use, error) {
	for _, has := range a.cfg.Pools {
		if has.State().ID == p {
			return has.Use()
		}
	}
	return nil, errs.New(errs.HostFailure, "this node has no storage pool %s: it is not in its configuration (agent --pool)", p)
}

// keeps gives the driver that has a volume of a VM.
func (a *Agent) keeps(rec record, v id.ID) (volume.Driver, error) {
	p, pooled := rec.Pools[v]
	if !pooled {
		return a.cfg.Volumes, nil
	}
	u, err := a.pool(p)
	if err != nil {
		return nil, err
	}
	return u.Volumes, nil
}

// claimed are the volumes of a VM that have claims, in order.
func (r record) claimed() []id.ID {
	return slices.SortedFunc(maps.Keys(r.Pools), func(x, y id.ID) int { return slices.Compare(x[:], y[:]) })
}

// claims does something with each claim of a VM, until one fails.
func (a *Agent) claims(rec record, do func(*pool.Claims, id.ID) error) error {
	for _, v := range rec.claimed() {
		u, err := a.pool(rec.Pools[v])
		if err == nil {
			err = do(u.Claims, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claim takes the VM's volumes for a process of an epoch, all or none. errs.StaleEpoch or
// errs.InUse when another node has one.
func (a *Agent) claim(rec record, epoch gen.OwnerEpoch) error {
	err := a.claims(rec, func(c *pool.Claims, v id.ID) error { return c.Take(v, rec.VM, epoch) })
	if err != nil {
		a.letGo(rec, epoch)
	}
	return err
}

// claimOver is claim for the node that an owner's change has given a VM that ran elsewhere:
// the one that it came from is done with it.
func (a *Agent) claimOver(rec record, epoch gen.OwnerEpoch) error {
	return a.claims(rec, func(c *pool.Claims, v id.ID) error { return c.TakeOver(v, rec.VM, epoch) })
}

// owned tells whether the VM's volumes are still this node's under an epoch.
func (a *Agent) owned(rec record, epoch gen.OwnerEpoch) error {
	return a.claims(rec, func(c *pool.Claims, v id.ID) error { return c.Check(v, epoch) })
}

// released lets the volumes go of a VM that has no process here.
func (a *Agent) released(rec record, epoch gen.OwnerEpoch) error {
	return a.claims(rec, func(c *pool.Claims, v id.ID) error { return c.Release(v, epoch) })
}

// letGo is released where that may fail: a claim that is held longer than it has to be
// keeps others out, and does no other harm.
func (a *Agent) letGo(rec record, epoch gen.OwnerEpoch) {
	if err := a.released(rec, epoch); err != nil {
		a.log.Warn("the disks of a VM that are in a storage pool cannot be let go; they are this node's until then", "vm", rec.VM, "err", err)
	}
}

// removeVolume removes a volume of a VM under an epoch. One in a pool goes unless it was
// claimed under a later one: then it is another node's.
func (a *Agent) removeVolume(ctx context.Context, rec record, v id.ID, epoch gen.OwnerEpoch) error {
	p, pooled := rec.Pools[v]
	if !pooled {
		return a.cfg.Volumes.Delete(ctx, v)
	}
	u, err := a.pool(p)
	if err == nil {
		err = u.Claims.Forget(v, epoch, true)
	}
	if err != nil {
		return err
	}
	return u.Volumes.Delete(ctx, v)
}

// disown ends a guest whose disks another node has by now, and tells why it ended.
func (a *Agent) disown(ctx context.Context, r hypervisor.Ref, why error) error {
	a.log.Error("a guest does not go on here: its disks in a storage pool are another node's", "vm", r.VM, "owner_epoch", r.Epoch, "err", why)
	a.reports.disown(r, "it does not go on here: "+errs.As(why).Message)
	s, err := a.driver.Kill(ctx, r)
	if err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	if s.Ref == r {
		a.reports.report(s)
	}
	return nil
}

// disowned is why an incarnation was ended.
type disowned struct {
	epoch gen.OwnerEpoch
	why   string
}

// disown notes why an incarnation is about to be ended.
func (r *reporter) disown(of hypervisor.Ref, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disowned[of.VM] = disowned{of.Epoch, why}
}

// asDisowned words the end of an incarnation that was disowned: it was not what anybody
// asked for. It is called with r.mu held.
func (r *reporter) asDisowned(s hypervisor.Status) hypervisor.Status {
	if d, ok := r.disowned[s.VM]; ok && d.epoch == s.Epoch && !s.Phase.OnNode() {
		s.Phase, s.Reason = vm.PhaseCrashed, d.why
	}
	return s
}
