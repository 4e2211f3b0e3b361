package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// adoptWorkers is how many VMs are looked at once; a silent one holds a worker
// for answerTime.
const adoptWorkers = 32

// Adopt implements contract.Driver.
func (d *Driver) Adopt(ctx context.Context) ([]contract.Status, error) {
	if d.dead() {
		return nil, errClosed()
	}
	var mu sync.Mutex
	var found []contract.Status
	var failed error
	var wg sync.WaitGroup
	slots := make(chan struct{}, adoptWorkers)
	for _, v := range strays(d.opt.vmsDir()) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s, err := d.adopt(ctx, v)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, err)
			} else if s != nil {
				found = append(found, *s)
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return nil, errs.New(errs.HostFailure, "not every VM of this node could be examined").Because(failed)
	}
	d.sweep(ctx)
	return sorted(found), nil
}

// adopt finds one VM as its records and the kernel say. Nil means that nothing
// of it ever ran.
func (d *Driver) adopt(ctx context.Context, v id.ID) (*contract.Status, error) {
	ctx, leave, err := d.turnQuietly(ctx, v)
	if err != nil {
		return nil, err
	}
	defer leave()
	if g := d.guest(v); g != nil { // taken up before
		g.refresh(ctx)
		s := g.Status()
		return &s, nil
	}
	root, err := d.vms.OpenRoot(v.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	rec, err := d.readMachine(v, root)
	if missing(err) {
		return nil, d.wipe(ctx, v) // died before it wrote anything down
	}
	if err != nil {
		return nil, err
	}
	g := d.newGuest(rec)
	if err := durable.ReadJSON(root, askedFile, &g.asked); err != nil && !missing(err) {
		d.log.Error("what was asked of a guest cannot be read", "vm", v, "error", err)
	}
	var end endRecord
	if err := durable.ReadJSON(root, endFile, &end); err == nil && end.Epoch == g.ref.Epoch {
		return d.adoptEnded(g, end), nil
	}
	return d.adoptProcess(ctx, g, root)
}

// readMachine reads machine.json. A record that cannot be read is made up from who
// runs: enough to watch and to end it.
func (d *Driver) readMachine(v id.ID, root *os.Root) (machineRecord, error) {
	var rec machineRecord
	err := durable.ReadJSON(root, machineFile, &rec)
	if err == nil || missing(err) {
		return rec, err
	}
	var p keeper.Proc
	if perr := durable.ReadJSON(root, keeper.ProcFile, &p); perr != nil {
		return rec, fmt.Errorf("%w; nor who runs: %w", err, perr)
	}
	d.log.Error("the record of a guest cannot be read; it is adopted by its process", "vm", v, "error", err)
	rec = machineRecord{Machine: contract.Machine{Ref: contract.Ref{VM: v, Epoch: p.Epoch}}}
	if p.Hypervisor.Alive() {
		rec.Group = d.cgroups.Of(p.Hypervisor.PID)
	}
	return rec, nil
}

// turnQuietly is begin without a flush: what Adopt finds goes to its caller.
func (d *Driver) turnQuietly(ctx context.Context, v id.ID) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.life, cancel)
	leave, err := d.turns.Take(ctx, v)
	if err != nil {
		stop()
		cancel()
		return nil, nil, err
	}
	return ctx, func() {
		leave()
		stop()
		cancel()
	}, nil
}

// adoptEnded takes over an end that was judged before.
func (d *Driver) adoptEnded(g *guest, end endRecord) *contract.Status {
	g.status.Phase, g.status.Reason, g.status.Since = end.Phase, end.Reason, end.Since
	close(g.ended)
	d.keep(g)
	d.giveBackEventually(g)
	s := g.Status()
	return &s
}

// adoptProcess takes over an incarnation that may live.
func (d *Driver) adoptProcess(ctx context.Context, g *guest, root *os.Root) (*contract.Status, error) {
	p, err := d.awaitProc(ctx, root)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, d.wipe(ctx, g.ref.VM) // a launch that never had a process
	}
	g.muted = true // what is found here goes to the caller, not to the sink
	err = g.hold(*p)
	if errors.Is(err, process.ErrGone) {
		g.settle(ctx)
		d.keep(g)
		s := g.Status()
		return &s, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if err := g.connect(ctx); err != nil {
		d.log.Warn("an adopted guest's hypervisor does not answer", "vm", g.ref.VM, "error", err)
		g.assume()
	}
	g.settleLimits(ctx)
	g.guardFilters()
	g.mu.Lock()
	if g.status.Phase == vm.PhaseRunning {
		g.status.Since = bootSince(p.Hypervisor, d.opt.Clock.Now(), d.opt.Clock.Boot())
	}
	s, suspending := g.status, g.asked.Suspend != nil
	g.muted = false
	g.mu.Unlock()
	d.keep(g)
	g.watch()
	if len(g.rec.Machine.NICs) > 0 {
		d.background(g.announce) // its network may have been started again while nobody looked
	}
	if suspending {
		s = g.settleSuspend(ctx)
	} else if g.sending() {
		s, _ = g.settleSend(ctx)
	}
	return &s, nil
}

// assume gives a guest whose hypervisor is silent the phase it most likely has.
func (g *guest) assume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.status.Phase == "" {
		p, _ := phaseOf("running", g.pressed)
		switch {
		case g.rec.Landing != nil && g.asked.Landing != landingOver:
			p = vm.PhaseIncoming
		case g.asked.Send != nil && g.asked.Send.Sent:
			p = vm.PhasePaused
		}
		g.change(p, silent)
	}
}

// sweep removes what no record explains, where no process is in it. A group with
// processes and no record is left alone: something runs that we know nothing of,
// and it is not ours to judge.
func (d *Driver) sweep(ctx context.Context) {
	known := strays(d.opt.vmsDir())
	suspects := strays(filepath.Join(d.opt.RunDir, d.opt.NodeShort))
	suspects = append(suspects, strays(filepath.Join(d.opt.RAMDir, d.opt.NodeShort))...)
	for _, v := range suspects {
		if slices.Contains(known, v) {
			continue
		}
		if pids := d.cgroups.Members(v.String()); len(pids) > 0 {
			continue // said below
		}
		if err := d.giveBack(ctx, v, machineRecord{}); err != nil {
			d.log.Warn("a leftover could not be removed", "vm", v, "error", err)
		}
	}
	d.sweepGroups(ctx)
	d.sweepUsers()
	d.sweepFilters(ctx)
	d.mendFilters(ctx)
}

// sweepGroups removes the groups that no guest is known to have: those of spares,
// which end with their driver, and of guests whose records are gone.
func (d *Driver) sweepGroups(ctx context.Context) {
	d.mu.Lock()
	used := map[string]bool{}
	for v, g := range d.guests {
		used[g.rec.group(v)] = true
	}
	d.mu.Unlock()
	for _, name := range d.cgroups.List() {
		if used[name] || d.spares.isMine(name) {
			continue
		}
		timed, cancel := d.within(ctx, dyingTime)
		err := d.cgroups.Remove(timed, name)
		cancel()
		if pids := d.cgroups.Members(name); len(pids) > 0 {
			d.log.Error("processes run in a cgroup of this node that no record tells of; they are left alone", "group", name, "pids", pids)
		} else if err != nil {
			d.log.Warn("a leftover could not be removed", "group", name, "error", err)
		}
	}
}

// sweepUsers gives back claims of our folders that are gone.
func (d *Driver) sweepUsers() {
	if d.users == nil {
		return
	}
	owners, err := d.users.Owners()
	if err != nil {
		return
	}
	for _, owner := range owners {
		if filepath.Dir(owner) != d.opt.vmsDir() {
			continue
		}
		if _, err := os.Stat(owner); missing(err) {
			_ = d.users.Release(owner)
		}
	}
}

// bootSince gives the wall time at which a process started, for display.
func bootSince(i process.Identity, now time.Time, boot time.Duration) time.Time {
	const ticks = 100 // USER_HZ, the same on every Linux
	return now.Add(time.Duration(i.Start)*time.Second/ticks - boot)
}
