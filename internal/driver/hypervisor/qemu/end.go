package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Kill implements contract.Driver.
func (d *Driver) Kill(ctx context.Context, r contract.Ref) (contract.Status, error) {
	d.breakSend(r)
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	g := d.guest(r.VM)
	if g == nil {
		return contract.Status{Ref: r, Phase: vm.PhaseExited, Reason: "nothing was running"}, nil
	}
	s := g.Status()
	if !s.Phase.OnNode() {
		return s, nil
	}
	if s.Epoch != r.Epoch {
		return contract.Status{}, stale(r, s)
	}
	if err := g.noteAsked(askedRecord{Kill: true}); err != nil {
		return contract.Status{}, err
	}
	if err := g.kill(ctx); err != nil {
		return contract.Status{}, errs.New(errs.HostFailure, "VM %s is not proven gone", r.VM).Because(err)
	}
	g.settle(ctx)
	s = g.Status()
	if s.Phase.OnNode() {
		return contract.Status{}, errs.New(errs.Timeout, "the end of VM %s is not yet recorded", r.VM).Because(ctx.Err())
	}
	return s, nil
}

// kill ends the hypervisor and returns when it is proven gone.
func (g *guest) kill(ctx context.Context) error {
	g.mu.Lock()
	hv := g.hv
	g.mu.Unlock()
	if hv != nil {
		if err := hv.Signal(unix.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
			return err
		}
		select {
		case <-hv.Ended():
		case <-ctx.Done():
			return fmt.Errorf("process %d is still there: %w", hv.ID().PID, ctx.Err())
		}
	}
	return g.d.cgroups.Kill(ctx, g.rec.group(g.ref.VM))
}

// settle judges, records and tells the end of a hypervisor that is gone, once.
// It may be called by whoever sees the end first.
func (g *guest) settle(ctx context.Context) {
	select {
	case <-g.ended:
		return
	default:
	}
	exit := g.readExit(ctx)
	if ctx.Err() != nil {
		return // the driver is closed; the next one settles
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.ended:
		return
	default:
	}
	end := endRecord{Epoch: g.ref.Epoch, Since: g.d.opt.Clock.Now()}
	end.Phase, end.Reason = g.judge(exit)
	if exit != nil {
		end.Since = exit.At
		if end.Phase == vm.PhaseCrashed {
			g.d.log.Error("guest crashed", "vm", g.ref.VM, "reason", end.Reason, "said", exit.Said)
		}
	}
	if err := g.write(endFile, end); err != nil {
		// Judged again, the same way, by the next agent.
		g.d.log.Error("the end of a guest is not recorded", "vm", g.ref.VM, "error", err)
	}
	g.change(end.Phase, end.Reason)
	g.status.Since = end.Since
	if g.mon != nil {
		_ = g.mon.Close()
	}
	close(g.ended)
	g.d.giveBackEventually(g)
}

// readExit waits for the keeper to write down the end, while it lives, and reads
// it; nil means that nobody watched.
func (g *guest) readExit(ctx context.Context) *keeper.Exit {
	timed, cancel := g.timed(ctx)
	defer cancel()
	_ = keeper.AwaitExit(timed, g.at.keeper())
	var e keeper.Exit
	if err := g.read(keeper.ExitFile, &e); err != nil || e.Epoch != g.ref.Epoch {
		return nil
	}
	return &e
}

// giveBackTime bounds giving back, which Close waits for: nobody else may come to
// do it.
const giveBackTime = 2 * answerTime

// giveBackEventually frees the host's resources of an ended guest off the way of
// those who wait for its end.
func (d *Driver) giveBackEventually(g *guest) {
	d.background(func() {
		ctx, cancel := d.within(context.WithoutCancel(d.life), giveBackTime)
		defer cancel()
		leave, err := d.turns.Take(ctx, g.ref.VM)
		if err != nil {
			return
		}
		defer leave()
		if d.guest(g.ref.VM) != g {
			return // released or launched anew, and given back by that
		}
		if err := d.giveBack(ctx, g.ref.VM, g.rec); err != nil {
			d.log.Warn("not everything of an ended guest could be given back yet", "vm", g.ref.VM, "error", err)
		}
	})
}

// giveBack frees what only a live guest needs: memory, sockets, cgroup, user and
// the ownership of its disks. Records and log stay.
func (d *Driver) giveBack(ctx context.Context, v id.ID, rec machineRecord) error {
	at := d.opt.places(v)
	errsSeen := []error{d.dismissKeeper(ctx, v)}
	if err := os.Remove(at.ram); err != nil && !missing(err) {
		errsSeen = append(errsSeen, err)
	}
	ended := d.removeCgroup(ctx, rec.group(v))
	if ended == nil { // nobody has its taps any more
		ended = d.newGuest(rec).removeFilters(ctx)
	}
	errsSeen = append(errsSeen, os.RemoveAll(at.run), ended)
	if d.users != nil && rec.UID != 0 {
		takeBackDisks(rec)
		errsSeen = append(errsSeen, d.users.Release(at.records))
	}
	return errors.Join(errsSeen...)
}

// removeCgroup ends what is left in a group whose keeper has gone, and removes it.
func (d *Driver) removeCgroup(ctx context.Context, group string) error {
	ctx, cancel := d.within(ctx, answerTime)
	defer cancel()
	if err := d.cgroups.KillAll(ctx, group); err != nil {
		return err
	}
	return d.cgroups.Remove(ctx, group)
}

// takeBackDisks gives disks to the agent's user again, so that the next guest
// with this uid finds none of them. Disks may be gone by now.
func takeBackDisks(rec machineRecord) {
	for _, disk := range rec.Machine.Disks {
		var s unix.Stat_t
		if unix.Lstat(disk.File.Path, &s) == nil && int(s.Uid) == rec.UID {
			_ = os.Lchown(disk.File.Path, os.Getuid(), os.Getgid())
		}
	}
}

// dismissKeeper ends a keeper whose guest is gone and recorded, or whose start is
// being taken back. It returns when the keeper is gone.
func (d *Driver) dismissKeeper(ctx context.Context, v id.ID) error {
	root, err := d.vms.OpenRoot(v.String())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	var p keeper.Proc
	if err := durable.ReadJSON(root, keeper.ProcFile, &p); err != nil {
		return nil
	}
	h, err := process.Open(p.Keeper)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	if err := h.Signal(unix.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
		return err
	}
	select {
	case <-h.Ended():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wipe removes everything of a VM: processes that are left, resources, records. That
// they are gone is not on the disk yet.
func (d *Driver) wipe(ctx context.Context, v id.ID) error {
	root, err := d.vms.OpenRoot(v.String())
	var rec machineRecord
	switch {
	case missing(err):
		return d.giveBack(ctx, v, rec)
	case err != nil:
		return err
	}
	defer func() { _ = root.Close() }()
	if err := durable.ReadJSON(root, machineFile, &rec); err != nil { // without it there is no uid or disk to give back
		if g := d.guest(v); g != nil {
			rec = g.rec
		}
	}
	if err := d.endLeftover(ctx, root); err != nil {
		return err
	}
	if err := d.giveBack(ctx, v, rec); err != nil {
		return err
	}
	return removeAll(d.vms, v.String())
}

// endLeftover ends the hypervisor that a record names, if it lives.
func (d *Driver) endLeftover(ctx context.Context, root *os.Root) error {
	p, err := d.awaitProc(ctx, root)
	if err != nil || p == nil {
		return err
	}
	h, err := process.Open(p.Hypervisor)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	if err := h.Signal(unix.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
		return err
	}
	select {
	case <-h.Ended():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitProc reads proc.json. A keeper that has just started writes it in a
// moment, or ends; nil means that there is none and never will be.
func (d *Driver) awaitProc(ctx context.Context, root *os.Root) (*keeper.Proc, error) {
	for {
		// Looked at in this order: whoever does not hold the lock now will not write.
		starting, err := keeper.Running(root)
		if err != nil {
			return nil, err
		}
		var p keeper.Proc
		err = durable.ReadJSON(root, keeper.ProcFile, &p)
		if err == nil {
			return &p, nil
		}
		if !missing(err) {
			return nil, err
		}
		if !starting {
			return nil, nil
		}
		if err := d.opt.Clock.Sleep(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
