package agent

import (
	"context"
	"errors"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (a *Agent) launchCommand(ctx context.Context, _ Peer, g *guest, c *nodelink.Launch) (any, error) {
	a.images.RLock()
	err := g.change(a.records, func(r *record) {
		r.PowerOn, r.Machine, r.Boot, r.Erased, r.Frozen, r.Move = true, &c.Machine, a.cfg.Boot, false, nil, nil
	})
	a.images.RUnlock()
	if err != nil {
		return nil, err
	}
	mark := a.reports.mark()
	s, done, err := a.started(ctx, c)
	if err == nil && !done {
		s, err = a.launchNewest(ctx, g, c)
	}
	if err != nil {
		// what did not start must not start by itself after a reboot
		_ = g.change(a.records, func(r *record) { r.PowerOn = false })
		return nil, err
	}
	return a.tell(ctx, mark, s), nil
}

// started finds an incarnation that an earlier attempt launched, whose reply was
// lost, and that has ended since: the step is done, and its guest is not run
// twice under one epoch.
func (a *Agent) started(ctx context.Context, c *nodelink.Launch) (hypervisor.Status, bool, error) {
	s, alive, err := a.live(ctx, c.VM)
	done := !alive && s.Phase != "" && s.Epoch == c.OwnerEpoch
	if err == nil && done && c.Resume && a.kept(s).Phase != s.Phase { // its guest has not executed, which would have used the memory up
		err = errs.New(errs.HostFailure, "the VM did not go on from its saved memory, which is kept: resume it again")
	}
	return s, done, err
}

// tell reports what a command found, unless the driver has told something newer:
// a guest that ended just after it was launched must not be reported as running.
func (a *Agent) tell(ctx context.Context, mark int64, s hypervisor.Status) nodelink.Report {
	for {
		rep, ok := a.reports.reportAt(mark, a.kept(s))
		if ok {
			return rep
		}
		mark = a.reports.mark()
		now, err := a.driver.Inspect(ctx, s.VM)
		if err != nil {
			return rep
		}
		s = now
	}
}

func (a *Agent) launch(ctx context.Context, g *guest, epoch gen.OwnerEpoch, m nodelink.Machine) (hypervisor.Status, error) {
	machine, err := a.machine(ctx, g, epoch, m)
	if err == nil {
		err = a.claim(g.snapshot(), epoch)
	}
	if err != nil {
		return hypervisor.Status{}, err
	}
	s, err := a.launchMachine(ctx, g, machine)
	if err != nil {
		a.letGoEnded(ctx, g, epoch)
	}
	return s, err
}

// letGoEnded lets the volumes go of a VM that has no process here, as far as can be told.
func (a *Agent) letGoEnded(ctx context.Context, g *guest, epoch gen.OwnerEpoch) {
	rec := g.snapshot()
	if _, alive, err := a.live(context.WithoutCancel(ctx), rec.VM); err == nil && !alive {
		a.letGo(rec, epoch)
	}
}

// machine is what the driver is to make of a VM on this host.
func (a *Agent) machine(ctx context.Context, g *guest, epoch gen.OwnerEpoch, m nodelink.Machine) (hypervisor.Machine, error) {
	machine := hypervisor.Machine{
		Ref:  hypervisor.Ref{VM: g.snapshot().VM, Epoch: epoch},
		CPUs: m.CPUs, MemoryBytes: m.MemoryBytes, Type: m.Type, CPU: m.CPU, Screen: a.driver.Capabilities().Display,
		Limits: limits(m.Limits),
	}
	a.withFirmware(&machine, m.Firmware)
	var err error
	if machine.Boot, err = a.boot(m); err != nil {
		return machine, err
	}
	bases := g.snapshot().Bases
	for _, v := range m.Volumes {
		if base, ok := bases[v]; ok {
			if _, err := a.cfg.Images.Path(base); err != nil {
				return machine, err
			}
		}
		disk, err := a.disk(ctx, g.snapshot(), v)
		if err != nil {
			return machine, err
		}
		machine.Disks = append(machine.Disks, disk)
	}
	if machine.CDs, err = a.drive(ctx, machine.VM, m); err != nil {
		return machine, err
	}
	machine.Drive = a.driver.Capabilities().Media
	if machine.Medium, err = a.medium(m.Medium); err != nil {
		return machine, err
	}
	for _, n := range m.NICs {
		machine.NICs = append(machine.NICs, nic(n))
	}
	if a.saved(machine.VM) {
		machine.Incoming = a.savedFile(machine.VM)
	}
	return machine, nil
}

// disk is a volume as a driver is to open it.
func (a *Agent) disk(ctx context.Context, rec record, v id.ID) (hypervisor.Disk, error) {
	d, err := a.keeps(rec, v)
	if err != nil {
		return hypervisor.Disk{}, err
	}
	vol, err := d.Inspect(ctx, v)
	_, shared := rec.Pools[v]
	return hypervisor.Disk{ID: v, File: vol.File, Backing: vol.Backing, Shared: shared}, err
}

// launchMachine launches, and keeps track of what firmware keeps.
func (a *Agent) launchMachine(ctx context.Context, g *guest, m hypervisor.Machine) (hypervisor.Status, error) {
	if err := a.lookForVariables(g, m); err != nil {
		return hypervisor.Status{}, err
	}
	s, err := a.driver.Launch(ctx, m)
	if err != nil {
		return s, err
	}
	return s, a.foundVariables(g, m)
}

// boot says what the machine starts from.
func (a *Agent) boot(m nodelink.Machine) (hypervisor.Boot, error) {
	b := hypervisor.Boot{Cmdline: m.Cmdline}
	for _, part := range []struct {
		file *nodelink.ImageFile
		path *string
	}{{m.Kernel, &b.Kernel}, {m.Initrd, &b.Initrd}} {
		if part.file == nil {
			continue
		}
		var err error
		if *part.path, err = a.cfg.Images.Path(*part.file); err != nil {
			return b, err
		}
	}
	return b, nil
}

func nic(n nodelink.NIC) hypervisor.NIC {
	out := hypervisor.NIC{ID: n.ID, MAC: n.MAC, Bridge: n.Bridge}
	for _, f := range n.Forwards {
		out.Forwards = append(out.Forwards, hypervisor.Forward{
			Protocol: f.Protocol, HostIP: f.HostIP, HostPort: f.HostPort, GuestPort: f.GuestPort,
		})
	}
	return out
}

func (a *Agent) launchNewest(ctx context.Context, g *guest, c *nodelink.Launch) (hypervisor.Status, error) {
	if s, alive, err := a.live(ctx, c.VM); err != nil || (alive && s.Epoch == c.OwnerEpoch && s.Phase != vm.PhaseStarting) {
		return s, err // an earlier attempt launched it, and its reply was lost
	}
	if err := a.mayResume(c); err != nil {
		return hypervisor.Status{}, err
	}
	if err := a.endEarlier(ctx, c.VM, c.OwnerEpoch); err != nil {
		return hypervisor.Status{}, err
	}
	if err := a.dropSeed(ctx, c.VM, c.Machine); err != nil {
		return hypervisor.Status{}, err
	}
	return a.launch(ctx, g, c.OwnerEpoch, c.Machine)
}

// endEarlier ends an incarnation of an earlier epoch. There is one when the node
// came back from a reboot and launched by its own record what the control plane
// was just asked to start: the later decision wins, and two never run.
func (a *Agent) endEarlier(ctx context.Context, vm id.ID, epoch gen.OwnerEpoch) error {
	s, alive, err := a.live(ctx, vm)
	if err != nil || !alive || s.Epoch >= epoch {
		return err
	}
	_, err = a.driver.Kill(ctx, s.Ref)
	return err
}

// live gives the VM's incarnation on this node, if a process of it exists.
func (a *Agent) live(ctx context.Context, vm id.ID) (hypervisor.Status, bool, error) {
	s, err := a.driver.Inspect(ctx, vm)
	if errs.Is(err, errs.NotFound) {
		return hypervisor.Status{Ref: hypervisor.Ref{VM: vm}}, false, nil
	}
	return s, err == nil && s.Phase.OnNode(), err
}

// endingTakes is how long a hypervisor that no longer answers may take to end.
const endingTakes = 5 * time.Second

// shutdown asks the guest and waits. Whether the guest obeyed is in the report.
func (a *Agent) shutdown(ctx context.Context, _ Peer, g *guest, c *nodelink.Shutdown) (any, error) {
	if err := g.change(a.records, func(r *record) { r.PowerOn = false }); err != nil {
		return nil, err
	}
	s, alive, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	if !alive {
		return a.ended(s, c.OwnerEpoch), nil
	}
	a.thawFirst(ctx, g, s.Ref)
	gone, stop := a.reports.watch(c.VM, func(s hypervisor.Status) bool { return !s.Phase.OnNode() })
	defer stop()
	grace := time.Duration(c.GraceMS) * time.Millisecond
	if err := a.driver.Shutdown(ctx, s.Ref); err != nil {
		// its hypervisor may be ending at this very moment; one that hangs is for the
		// next step, which does not ask
		a.log.Warn("a guest cannot be asked to shut down", "vm", c.VM, "err", err)
		grace = min(grace, endingTakes)
	}
	after, free := a.cfg.Clock.After(grace)
	defer free()
	select {
	case <-gone:
	case <-after:
	case <-ctx.Done():
		return nil, errs.New(errs.Timeout, "the guest was asked to shut down and has not yet").Because(ctx.Err())
	}
	mark := a.reports.mark()
	s, alive, err = a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	if alive {
		return a.tell(ctx, mark, s), nil
	}
	a.letGo(g.snapshot(), c.OwnerEpoch)
	return a.ended(s, c.OwnerEpoch), nil
}

// ended reports a VM without a process. Where the host holds no trace of the
// current epoch, the agent still knows: nothing runs.
func (a *Agent) ended(s hypervisor.Status, epoch gen.OwnerEpoch) nodelink.Report {
	if s.Phase == "" || s.Epoch < epoch {
		s.Epoch, s.Phase, s.Reason, s.Since = epoch, exited, "", a.cfg.Clock.Now()
	}
	return a.reports.report(s)
}

func (a *Agent) powerOff(ctx context.Context, _ Peer, g *guest, c *nodelink.PowerOff) (any, error) {
	if err := g.change(a.records, func(r *record) { r.PowerOn = false }); err != nil {
		return nil, err
	}
	s, alive, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	if alive {
		if s, err = a.driver.Kill(ctx, s.Ref); err != nil {
			return nil, err
		}
	}
	a.letGo(g.snapshot(), c.OwnerEpoch)
	switch saved := a.saved(c.VM); {
	case saved && !c.Discard:
		return a.asSaved(c.VM, c.OwnerEpoch, ""), nil
	case saved || s.Phase == vm.PhaseSuspended:
		s.Phase = "" // given up: there is nothing of it any more
		if err := a.discard(c.VM); err != nil {
			return nil, err
		}
	}
	return a.ended(s, c.OwnerEpoch), nil
}

func (a *Agent) pause(ctx context.Context, _ Peer, _ *guest, c *nodelink.Pause) (any, error) {
	mark := a.reports.mark()
	s, err := a.driver.Pause(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.OwnerEpoch})
	if err != nil {
		return nil, err
	}
	return a.tell(ctx, mark, s), nil
}

func (a *Agent) resume(ctx context.Context, _ Peer, g *guest, c *nodelink.Resume) (any, error) {
	if err := a.owned(g.snapshot(), c.OwnerEpoch); err != nil {
		return nil, err
	}
	mark := a.reports.mark()
	s, err := a.driver.Resume(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.OwnerEpoch})
	if err != nil {
		return nil, err
	}
	return a.tell(ctx, mark, s), nil
}

// erase removes all but the fence. The record becomes a tombstone first, so
// that nothing can start what is being removed.
func (a *Agent) erase(ctx context.Context, _ Peer, g *guest, c *nodelink.Erase) (any, error) {
	err := g.change(a.records, func(r *record) {
		r.PowerOn, r.Machine, r.Bases, r.Volumes, r.Frozen, r.Variables, r.Anew, r.Move, r.Erased = false, nil, nil, nil, nil, nil, nil, nil, true
	})
	if err == nil {
		err = a.endLanded(ctx, c.VM)
	}
	if err != nil {
		return nil, err
	}
	if err := a.driver.Release(ctx, c.VM); err != nil {
		return nil, err
	}
	if err := errors.Join(a.discard(c.VM), a.forgetVariables(c.VM)); err != nil {
		return nil, err
	}
	rec := g.snapshot()
	for _, v := range append(c.Volumes, c.VM) { // the seed has the VM's id
		if err := a.removeVolume(ctx, rec, v, c.OwnerEpoch); err != nil {
			return nil, err
		}
	}
	a.reports.forget(c.VM)
	return nodelink.Done{}, nil
}
