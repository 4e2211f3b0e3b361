package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

const (
	// tbSizeMiB bounds TCG's cache of translated code, which counts as the guest's.
	tbSizeMiB = 256
	// overhead is what QEMU and the keeper may use beside guest RAM: generous,
	// because reaching the limit kills the guest.
	overhead = (tbSizeMiB + 512) * unit.MiB
	// threads bounds the guest's processes and threads beside its vCPUs.
	threads = 256
	// files bounds the open files of QEMU.
	files = 4096
	// cleanTime bounds the clean-up of a launch that failed.
	cleanTime = 10 * time.Second
)

// Launch implements contract.Driver.
func (d *Driver) Launch(ctx context.Context, m contract.Machine) (contract.Status, error) {
	if err := m.Validate(); err != nil {
		return contract.Status{}, err
	}
	ctx, leave, err := d.begin(ctx, m.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	if old := d.guest(m.VM); old != nil {
		s, done, err := mayLaunch(m.Ref, old)
		if done || err != nil {
			return s, err
		}
		if s.Phase == vm.PhaseStarting {
			old.abandon()
		}
	}
	if err := d.mayHave(m); err != nil {
		return contract.Status{}, err
	}
	rec, err := d.fitted(ctx, m, nil)
	if err != nil {
		return contract.Status{}, err
	}
	return d.launch(ctx, rec, nil)
}

// fitted gives the record of a machine, which may come from another host, once all that
// it needs of this one is there.
func (d *Driver) fitted(ctx context.Context, m contract.Machine, from *arriving) (machineRecord, error) {
	rec := machineRecord{Machine: m, Agent: true, Layout: layoutNewest, At: d.opt.Clock.Now()}
	host, err := d.describe(ctx)
	if err != nil {
		return rec, err
	}
	code, err := d.firmware.of(m)
	if err != nil {
		return rec, err
	}
	rec.Accel, rec.Code = host.Accel, code.Mapping.Executable.Filename
	if why := vm.CannotStart(vm.Hardware{CPU: m.CPU, Firmware: m.Firmware}, host.Accel); why != "" {
		return rec, errs.New(errs.Unsupported, "this node %s", why)
	}
	if from != nil {
		rec, err = host.asDeparted(rec, from.hardware)
	} else {
		rec, err = host.fit(rec)
	}
	if err != nil {
		return rec, err
	}
	if err := code.makeVariables(m.Variables); err != nil {
		return rec, err
	}
	return rec, checkFiles(rec.Machine)
}

// mayHave refuses what this host does not have for a machine.
func (d *Driver) mayHave(m contract.Machine) error {
	if err := d.Capabilities().Allows(m.Limits); err != nil {
		return err
	}
	return d.mayJoin(m)
}

// mayLaunch compares what is wanted with the last incarnation. Done means that
// it runs already.
func mayLaunch(r contract.Ref, last *guest) (s contract.Status, done bool, err error) {
	s = last.Status()
	switch {
	case r.Epoch < s.Epoch:
		return s, false, stale(r, s)
	case s.Phase == vm.PhaseStarting && r.Epoch == s.Epoch:
		return s, false, nil // cut in two by an agent's death: done anew
	case s.Phase == vm.PhaseIncoming && r.Epoch == s.Epoch:
		return s, false, contract.ErrNotArrived(r.VM)
	case s.Phase.OnNode() && r.Epoch == s.Epoch:
		return s, true, nil
	case s.Phase.OnNode():
		return s, false, errs.New(errs.InvalidState, "VM %s still runs under owner epoch %d: kill it first", r.VM, s.Epoch)
	case r.Epoch == s.Epoch:
		return s, false, errs.New(errs.InvalidState,
			"VM %s has already run and ended under owner epoch %d: release it or raise the epoch", r.VM, r.Epoch)
	}
	return s, false, nil
}

// checkFiles looks for the images before anything is made.
func checkFiles(m contract.Machine) error {
	type file struct{ what, path string }
	files := []file{{"the kernel", m.Boot.Kernel}, {"the initrd", m.Boot.Initrd}}
	for _, i := range imagesOf(m) {
		files = append(files, file{i.what, i.file.Path})
	}
	for _, f := range files {
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		switch {
		case missing(err):
			return errs.New(errs.NotFound, "%s is not on this node", f.what).Because(err)
		case err != nil:
			return errs.New(errs.HostFailure, "%s cannot be examined", f.what).Because(err)
		case !info.Mode().IsRegular():
			return errs.New(errs.InvalidField, "%s is not a regular file", f.what)
		}
	}
	return nil
}

// launch makes everything, starts, connects and lets the guest go. On failure it
// takes all of that back.
func (d *Driver) launch(ctx context.Context, rec machineRecord, from *arriving) (contract.Status, error) {
	m := rec.Machine
	old := d.guest(m.VM)
	if err := d.wipe(ctx, m.VM); err != nil {
		return contract.Status{}, errs.New(errs.HostFailure,
			"what VM %s left on this node could not all be removed", m.VM).Because(err)
	}
	if old != nil {
		old.letGo()
		d.forget(m.VM)
	}
	defer d.spares.refill()
	g := d.newGuest(rec)
	err := d.start(ctx, g, from)
	if err == nil {
		s := g.Status()
		g.watch()
		return s, nil
	}
	if d.dead() {
		return contract.Status{}, errClosed() // left as it is, for the next agent
	}
	return contract.Status{}, d.takeBack(ctx, g, err)
}

// takeBack undoes a launch that failed and gives the error to return.
func (d *Driver) takeBack(ctx context.Context, g *guest, cause error) error {
	said := g.lastWords(ctx)
	clean, cancel := d.within(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if err := d.wipe(clean, g.ref.VM); err != nil {
		d.log.Error("a launch that failed left something behind", "vm", g.ref.VM, "error", err)
		if g.hv != nil {
			g.watch()
		}
		return errs.New(errs.HostFailure, "VM %s did not start, and not everything could be removed: kill and release it",
			g.ref.VM).Because(errors.Join(cause, err))
	}
	close(g.ended)
	g.letGo()
	g.mu.Lock()
	if g.status.Phase != "" {
		g.change(vm.PhaseExited, "did not start")
	}
	g.mu.Unlock()
	d.forget(g.ref.VM)
	d.log.Warn("guest did not start", "vm", g.ref.VM, "error", cause, "said", said)
	return launchError(g.ref, cause, said)
}

// start brings the guest to run.
func (d *Driver) start(ctx context.Context, g *guest, from *arriving) error {
	ready, err := d.spares.take(ctx)
	if err != nil {
		return errs.New(errs.HostFailure, "the cgroup or the keeper of VM %s cannot be made", g.ref.VM).Because(err)
	}
	g.rec.Group = ready.group
	cfg, err := d.prepare(g)
	if err != nil {
		return errors.Join(err, d.spares.discard(context.WithoutCancel(ctx), ready))
	}
	p, err := d.startKeeper(ctx, g, ready, cfg)
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	if err := g.hold(p); err != nil {
		g.early = true // it ended before anybody looked
		return fmt.Errorf("hold the hypervisor: %w", err)
	}
	d.keep(g)
	g.mu.Lock()
	g.change(vm.PhaseStarting, "")
	g.mu.Unlock()
	ctx, cancel := g.untilEnd(ctx)
	defer cancel()
	if err := g.connectFirst(ctx); err != nil {
		return fmt.Errorf("connect to the hypervisor: %w", err)
	}
	g.mu.Lock()
	c := g.mon
	g.mu.Unlock()
	if from != nil {
		err = g.awaitMemory(ctx, from)
	} else {
		err = g.letExecute(ctx, c)
	}
	if err != nil {
		return err
	}
	return g.query(ctx, c)
}

// letExecute lets the guest execute. QEMU has its images locked before that; those
// of a guest that goes on from its memory it locks with it.
func (g *guest) letExecute(ctx context.Context, c *qmp.Client) error {
	m := g.rec.Machine
	if m.Incoming == "" {
		if err := assertLocked(m); err != nil {
			return err
		}
	}
	if err := g.limitDisks(ctx, m.Limits, false); err != nil {
		return err
	}
	if err := g.incoming(ctx, c); err != nil {
		return err
	}
	if err := c.Execute(ctx, "cont", nil, nil); err != nil {
		return fmt.Errorf("let the guest go: %w", err)
	}
	if m.Incoming != "" {
		return assertLocked(m)
	}
	return nil
}

// untilEnd gives a context that also ends with the hypervisor.
func (g *guest) untilEnd(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	hv := g.hv
	go func() {
		select {
		case <-hv.Ended():
			cancel(errors.New("the hypervisor ended"))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// connectFirst is connect without its patience: a hypervisor that just starts on
// a busy host may take long, and the caller's context bounds it.
func (g *guest) connectFirst(ctx context.Context) error {
	for {
		err := g.connect(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if !errors.Is(err, context.Canceled) { // anything but our own patience
			return err
		}
	}
}

// prepare makes what the guest needs on the host and the keeper's instructions.
// The first thing made is the record that names all others.
func (d *Driver) prepare(g *guest) (keeper.Config, error) {
	var none keeper.Config
	m := g.rec.Machine
	if err := d.vms.Mkdir(m.VM.String(), 0o700); err != nil {
		return none, err
	}
	if d.users != nil {
		uid, err := d.users.Claim(g.at.records)
		if err != nil {
			return none, err
		}
		g.rec.UID = uid
	}
	if err := g.write(machineFile, g.rec); err != nil {
		return none, err
	}
	if err := durable.Sync(d.vms); err != nil {
		return none, err
	}
	if err := os.Mkdir(g.at.run, 0o711); err != nil { //nolint:gosec // passt, of the guest's user, opens its pipe there by name; it cannot list the folder
		return none, err
	}
	if err := makeRAM(g.at.ram, m.MemoryBytes); err != nil {
		return none, err
	}
	if err := g.giveOwn(); err != nil {
		return none, err
	}
	if err := g.limitGroup(); err != nil {
		return none, err
	}
	return d.keeperConfig(g)
}

// devices are the character devices that QEMU opens.
func devices(accel string) []string {
	out := []string{"1:3", "1:5", "1:8", "1:9"} // null, zero, random, urandom
	if accel == "kvm" {
		out = append(out, "10:232")
	}
	return out
}

// giveOwn lets the guest's user, and nobody else, use its memory and its folder of
// sockets. Images are handed to it open.
func (g *guest) giveOwn() error {
	if err := os.Mkdir(g.at.inside(), 0o700); err != nil {
		return err
	}
	if g.rec.UID == 0 {
		return nil
	}
	for _, path := range []string{g.at.ram, g.at.inside()} {
		if err := os.Lchown(path, g.rec.UID, g.rec.UID); err != nil {
			return errs.New(errs.HostFailure, "the memory of VM %s cannot be given to its user", g.ref.VM).Because(err)
		}
	}
	return nil
}

func (d *Driver) keeperConfig(g *guest) (keeper.Config, error) {
	m := g.rec.Machine
	on := shape{binary: d.opt.Binary, data: beside(d.opt.Binary, firmwareBeside), machine: g.rec.Type, accel: g.rec.Accel, cpu: g.rec.CPU, code: g.rec.Code, ram: g.at.ram, inside: g.at.inside(), kernel: m.Boot.Kernel, initrd: m.Boot.Initrd, taps: tapFDs(m), agent: g.rec.Agent, layout: g.rec.Layout, awaits: g.rec.Landing != nil}
	c := keeper.Config{
		Dir: g.at.records, Control: g.at.control(), Serial: g.at.serial(), Socket: g.at.keeper(),
		Epoch: g.ref.Epoch, LogBytes: d.opt.LogBytes,
		Exec: keeper.Exec{
			Path: d.opt.Binary,
			Env:  []string{"PATH=" + filepath.Dir(d.opt.Binary), "HOME=/nonexistent"},
			Limits: []keeper.Limit{
				{Resource: unix.RLIMIT_CORE, Max: 0},
				{Resource: unix.RLIMIT_NOFILE, Max: files},
			},
		},
	}
	if d.jail.spec != nil {
		c.Exec.Binds = g.inJail(&on)
	}
	var err error
	if d.jail.passt != "" {
		if on.nets, c.Aides, err = d.passts(g); err != nil {
			return keeper.Config{}, err
		}
	}
	if c.Exec.Argv, err = commandLine(m, on); err != nil {
		return keeper.Config{}, err
	}
	if g.rec.UID != 0 {
		c.Exec.Credential = &keeper.Credential{UID: g.rec.UID, GID: g.rec.UID, Groups: deviceGroups(g.rec.Accel)}
		// Counted per user, so only where the user is the guest's own.
		c.Exec.Limits = append(c.Exec.Limits, keeper.Limit{
			Resource: unix.RLIMIT_NPROC, Max: uint64(m.CPUs + threads),
		})
	}
	return c, nil
}

// lastWords gives what a hypervisor that ended by itself said.
func (g *guest) lastWords(ctx context.Context) string {
	g.mu.Lock()
	hv := g.hv
	g.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	if hv == nil && !g.early || hv != nil && !g.gone(ctx, hv) {
		return ""
	}
	if e := g.readExit(ctx); e != nil {
		return e.Said
	}
	return ""
}

// launchError words why a guest did not start.
func launchError(r contract.Ref, cause error, said string) error {
	var known *errs.Error
	switch {
	case errors.As(cause, &known):
		return cause
	case strings.Contains(said, "Could not set up host forwarding rule"), strings.Contains(cause.Error(), "Failed to bind"):
		return errs.New(errs.InUse, "a port of this node that VM %s forwards is taken", r.VM).Because(cause)
	case strings.Contains(said, `Failed to get "write" lock`), strings.Contains(said, `Failed to get shared "write" lock`):
		return errs.New(errs.InUse, "a disk of VM %s is in use by another process of this node", r.VM).Because(cause)
	case strings.Contains(said, "No space left on device"):
		return errs.New(errs.NoSpace, "this node has no space left to start VM %s", r.VM).Because(cause)
	case strings.Contains(said, "Image is not in qcow2 format"):
		return errs.New(errs.InvalidImage, "a disk of VM %s is not in the format it is said to have", r.VM).Because(cause)
	case errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded):
		if said == "" {
			return errs.New(errs.Timeout, "VM %s did not start in time", r.VM).Because(cause)
		}
	}
	return errs.New(errs.HostFailure, "the hypervisor of VM %s did not start; the node's log has its words", r.VM).
		Because(fmt.Errorf("%w: %s", cause, strings.TrimSpace(said)))
}
