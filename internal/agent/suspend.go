package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// savedDir is where memories of suspended guests are.
const savedDir = "suspended"

// savedFile is where a VM's memory is while it is suspended. The file is the truth:
// where it is, the VM is suspended, or about to go on from it.
func (a *Agent) savedFile(v id.ID) string {
	return filepath.Join(a.cfg.DataDir, savedDir, v.String()+".memory")
}

// saved tells whether a VM's memory is on disk.
func (a *Agent) saved(v id.ID) bool {
	_, err := os.Stat(a.savedFile(v))
	return err == nil
}

// discard removes a VM's saved memory, and what is beside it.
func (a *Agent) discard(v id.ID) error {
	left, err := filepath.Glob(a.savedFile(v) + "*")
	for _, f := range left {
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the saved memory of the VM cannot be removed").Because(err)
	}
	return nil
}

// suspender gives the driver's ability.
func (a *Agent) suspender() (hypervisor.Suspender, error) {
	d, ok := a.driver.(hypervisor.Suspender)
	if !ok || !a.driver.Capabilities().Suspend {
		return nil, errs.New(errs.Unsupported, "this node's hypervisor cannot suspend guests")
	}
	return d, nil
}

// suspend saves a guest's memory. The record follows what is on disk: an agent that
// dies between the two is told by the file, and a host that does lets the VM go on.
func (a *Agent) suspend(ctx context.Context, _ Peer, g *guest, c *nodelink.Suspend) (any, error) {
	d, err := a.suspender()
	if err != nil {
		return nil, err
	}
	a.thawFirst(ctx, g, hypervisor.Ref{VM: c.VM, Epoch: c.OwnerEpoch})
	mark := a.reports.mark()
	s, err := d.Suspend(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.OwnerEpoch}, a.savedFile(c.VM))
	if err != nil {
		return nil, err
	}
	if err := g.change(a.records, func(r *record) { r.PowerOn = false }); err != nil {
		return nil, err
	}
	a.letGoEnded(ctx, g, c.OwnerEpoch)
	return a.tell(ctx, mark, s), nil
}

// look reports how a VM is.
func (a *Agent) look(ctx context.Context, _ Peer, g *guest, c *nodelink.Look) (any, error) {
	mark := a.reports.mark()
	s, alive, err := a.live(ctx, c.VM)
	switch {
	case err != nil:
		return nil, err
	case alive:
		return a.tell(ctx, mark, s), nil
	case a.saved(c.VM):
		err := g.change(a.records, func(r *record) { r.PowerOn = false })
		return a.asSaved(c.VM, c.OwnerEpoch, ""), err
	}
	return a.ended(s, c.OwnerEpoch), nil
}

// asSaved reports a VM as suspended.
func (a *Agent) asSaved(v id.ID, epoch gen.OwnerEpoch, why string) nodelink.Report {
	return a.reports.report(hypervisor.Status{Ref: hypervisor.Ref{VM: v, Epoch: epoch}, Phase: vm.PhaseSuspended, Reason: why, Since: a.cfg.Clock.Now()})
}

// seen takes a status from the driver: it is the driver's sink.
func (a *Agent) seen(s hypervisor.Status) {
	if !a.landing(s.Ref) {
		a.reports.observe(a.kept(s))
	}
}

// kept gives a status as it is told. What ended while a memory is saved has not gone on
// from that, and its VM is suspended as before, whenever this comes: after the command
// that failed, or from an agent that died over it.
func (a *Agent) kept(s hypervisor.Status) hypervisor.Status {
	if (s.Phase == vm.PhaseExited || s.Phase == vm.PhaseCrashed) && a.saved(s.VM) {
		s.Phase, s.Reason = vm.PhaseSuspended, "it did not go on from its saved memory, which is kept"
	}
	return s
}

// mayResume compares what the control plane has in mind with what is on disk: memory
// is never given up, or missed, behind anybody's back.
func (a *Agent) mayResume(c *nodelink.Launch) error {
	switch saved := a.saved(c.VM); {
	case c.Resume && !saved:
		return errs.New(errs.InvalidState, "the saved memory of the VM is not on its node any more: it can only be started anew; stop it first, which makes that final")
	case !c.Resume && saved:
		return errs.New(errs.InvalidState, "the VM's memory is saved on its node, and a start would lose it: resume it, or stop it first, which gives the memory up")
	}
	return nil
}
