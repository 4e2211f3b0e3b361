package qemu

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/cgroup"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/outbox"
	"github.com/novacron/novacron/internal/driver/hypervisor/uids"
	"github.com/novacron/novacron/internal/driver/turn"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Driver runs guests on QEMU.
type Driver struct {
	opt      Options
	log      *slog.Logger
	out      *outbox.Outbox
	lock     *os.File
	data     *os.Root // DataDir
	vms      *os.Root // DataDir/vms
	cgroups  *cgroup.Tree
	users    *uids.Pool // nil when not root
	spares   *spares
	jail     walls
	filters  sync.Mutex // serializes what is done to the node's filters
	guard    sync.Once  // starts to look after them
	firmware firmwares

	// life ends with Close, and with it everything in the background.
	life context.Context
	end  context.CancelFunc
	once sync.Once
	work sync.WaitGroup

	turns      turn.Table
	describing chan struct{}
	found      hostRecord // guarded by describing

	mu     sync.Mutex
	guests map[id.ID]*guest
}

var _ contract.Driver = (*Driver)(nil)

// New opens the driver on this host. One driver at a time uses a data folder.
func New(opt Options) (*Driver, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	if err := opt.prepareHost(); err != nil {
		return nil, err
	}
	lock, err := opt.lockData()
	if err != nil {
		return nil, err
	}
	d := &Driver{
		opt: opt, log: opt.Logger, lock: lock,
		out:        outbox.New(opt.Sink),
		describing: make(chan struct{}, 1),
		guests:     map[id.ID]*guest{},
	}
	d.life, d.end = context.WithCancel(context.Background())
	if err := d.openHost(); err != nil {
		_ = d.Close()
		return nil, err
	}
	d.firmware = findFirmware(firmwareFolders)
	d.jail = opt.openJail(d.life, d.firmware)
	d.spares = newSpares(opt.Program, d.cgroups, d.users, d.jail.spec)
	d.work.Go(func() { d.spares.run(d.life) })
	return d, nil
}

func (d *Driver) openHost() error {
	var err error
	if d.data, err = os.OpenRoot(d.opt.DataDir); err != nil {
		return errs.New(errs.HostFailure, "the data folder cannot be opened").Because(err)
	}
	if d.vms, err = os.OpenRoot(d.opt.vmsDir()); err != nil {
		return errs.New(errs.HostFailure, "the folder of VM records cannot be opened").Because(err)
	}
	if err := durable.Sweep(d.data); err != nil {
		return errs.New(errs.HostFailure, "the data folder cannot be swept").Because(err)
	}
	if d.cgroups, err = cgroup.Open(d.opt.NodeShort, d.opt.CgroupParent, d.opt.Clock); err != nil {
		return errs.New(errs.HostFailure, "the cgroups of this node cannot be examined").Because(err)
	}
	if os.Getuid() == 0 {
		if d.users, err = uids.Open(d.opt.UIDDir, d.opt.UIDs); err != nil {
			return err
		}
	}
	return nil
}

// Close implements contract.Driver.
func (d *Driver) Close() error {
	d.once.Do(func() {
		d.end()
		d.mu.Lock()
		all := make([]*guest, 0, len(d.guests))
		for _, g := range d.guests {
			all = append(all, g)
		}
		d.mu.Unlock()
		for _, g := range all {
			g.letGo()
		}
		d.work.Wait()
		d.out.Close()
		if d.lock != nil {
			d.opt.closeJail()
		}
		for _, c := range []io.Closer{d.data, d.vms, d.lock} {
			if c != nil && !isNilRoot(c) {
				_ = c.Close()
			}
		}
	})
	return nil
}

// isNilRoot tells a nil *os.Root in an interface.
func isNilRoot(c io.Closer) bool {
	r, ok := c.(*os.Root)
	return ok && r == nil
}

// Capabilities implements contract.Driver.
func (d *Driver) Capabilities() contract.Capabilities {
	c := contract.Capabilities{
		Pause: true, GrowDisk: true, Suspend: true, Migrate: true, Warm: true, Seals: true, Shutdown: true, Media: true, Console: true, Display: true, GuestAgent: true, Freeze: true, UserNetwork: true,
		DiskLimits: true, CPUWeight: d.cgroups.HasCPU(), CPUCap: d.cgroups.HasCPU(),
		Bridges:     d.bridges(),
		Confinement: []string{"seccomp", "no_new_privs"},
	}
	if d.users != nil {
		c.Confinement = append(c.Confinement, "uid", "no capabilities")
	}
	if d.jail.spec != nil {
		c.Confinement = append(c.Confinement, "mount namespace", "pid namespace", "ipc namespace", "uts namespace")
		if d.jail.spec.Net != "" {
			c.Confinement = append(c.Confinement, "network namespace")
		}
	}
	ctl := d.cgroups.Controllers()
	if len(ctl) > 0 {
		c.Confinement = append(c.Confinement, "cgroup ("+strings.Join(ctl, ", ")+")")
	}
	c.Unconfined = slices.Concat(d.jail.missing, lacksOf(ctl))
	return c
}

// dead tells whether the driver is closed.
func (d *Driver) dead() bool { return d.life.Err() != nil }

func errClosed() error { return errs.New(errs.Cancelled, "the hypervisor driver was closed") }

// begin takes the VM's turn. The context it gives ends with the caller's or with
// the driver.
func (d *Driver) begin(ctx context.Context, v id.ID) (context.Context, func(), error) {
	if d.dead() {
		return nil, nil, errClosed()
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.life, cancel)
	leave, err := d.turns.Take(ctx, v)
	if err == nil && d.dead() {
		leave()
		err = errClosed()
	}
	if err != nil {
		stop()
		cancel()
		return nil, nil, err
	}
	return ctx, func() {
		leave()
		stop()
		cancel()
		d.out.Flush()
	}, nil
}

// guest gives what the driver holds of a VM, or nil.
func (d *Driver) guest(v id.ID) *guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.guests[v]
}

func (d *Driver) keep(g *guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guests[g.ref.VM] = g
}

func (d *Driver) forget(v id.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.guests, v)
}

// live gives the guest that a call means.
func (d *Driver) live(r contract.Ref) (*guest, error) {
	g := d.guest(r.VM)
	if g == nil {
		return nil, notHere(r.VM)
	}
	s := g.Status()
	if s.Epoch != r.Epoch {
		return nil, stale(r, s)
	}
	if !s.Phase.OnNode() {
		return nil, errs.New(errs.InvalidState, "VM %s does not run: %s %s", r.VM, s.Phase, s.Reason)
	}
	return g, nil
}

func notHere(v id.ID) error { return errs.New(errs.NotFound, "VM %s is not on this node", v) }

func stale(r contract.Ref, s contract.Status) error {
	return errs.New(errs.StaleEpoch, "VM %s is at owner epoch %d here; the call names epoch %d", r.VM, s.Epoch, r.Epoch)
}

// Inspect implements contract.Driver.
func (d *Driver) Inspect(ctx context.Context, v id.ID) (contract.Status, error) {
	if d.dead() {
		return contract.Status{}, errClosed()
	}
	g := d.guest(v)
	if g == nil {
		return contract.Status{}, notHere(v)
	}
	g.refresh(ctx)
	d.out.Flush()
	return g.Status(), nil
}

// Pause implements contract.Driver.
func (d *Driver) Pause(ctx context.Context, r contract.Ref) (contract.Status, error) {
	return d.command(ctx, r, "stop", vm.PhasePaused)
}

// Resume implements contract.Driver.
func (d *Driver) Resume(ctx context.Context, r contract.Ref) (contract.Status, error) {
	return d.command(ctx, r, "cont", vm.PhaseRunning)
}

// started is live for calls that a half launched guest has no use for.
func (d *Driver) started(r contract.Ref) (*guest, error) {
	g, err := d.live(r)
	if err != nil {
		return nil, err
	}
	s := g.Status()
	switch {
	case s.Phase == vm.PhaseStarting:
		return nil, errs.New(errs.InvalidState, "VM %s has not started yet", r.VM)
	case s.Phase == vm.PhaseIncoming:
		return nil, contract.ErrNotArrived(r.VM)
	case g.sentAway():
		return nil, contract.ErrSentAway(r.VM)
	}
	return g, nil
}

// command halts or continues the vCPUs. QEMU takes both at any time and tells by
// an event, which has been seen when the answer comes.
func (d *Driver) command(ctx context.Context, r contract.Ref, name string, to vm.Phase) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	g, moved, err := d.commanded(ctx, r, to)
	if err != nil {
		return contract.Status{}, err
	}
	err = g.carryOut(ctx, name, moved)
	s := g.Status()
	switch {
	case !s.Phase.OnNode() && err == nil && to == vm.PhaseRunning:
		return s, nil // it was resumed, and ended at once
	case !s.Phase.OnNode():
		_, err = d.live(r)
	case err == nil && (s.Phase == vm.PhasePaused) != (to == vm.PhasePaused):
		err = errs.New(errs.GuestFailure, "VM %s is %s after it was told to %s: %s", r.VM, s.Phase, name, s.Reason)
	}
	if err != nil {
		return contract.Status{}, err
	}
	return s, nil
}

// Shutdown implements contract.Driver.
func (d *Driver) Shutdown(ctx context.Context, r contract.Ref) error {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return err
	}
	defer leave()
	if g := d.guest(r.VM); g != nil && g.Status().Ref == r && !g.Status().Phase.OnNode() {
		return nil
	}
	g, err := d.here(r)
	if err != nil {
		return err
	}
	if err := g.noteAsked(askedRecord{Shutdown: true}); err != nil {
		return err
	}
	if g.powerDownByAgent(ctx) {
		return nil
	}
	err = g.ask(ctx, "system_powerdown")
	if err == nil {
		return nil
	}
	g.refresh(ctx) // it may have ended under the question
	if !g.Status().Phase.OnNode() {
		return nil
	}
	return err
}

// Release implements contract.Driver.
func (d *Driver) Release(ctx context.Context, v id.ID) error {
	ctx, leave, err := d.begin(ctx, v)
	if err != nil {
		return err
	}
	defer leave()
	g := d.guest(v)
	if g != nil && g.Status().Phase.OnNode() {
		return errs.New(errs.InvalidState, "VM %s still runs on this node: stop it first", v)
	}
	err = d.wipe(ctx, v)
	if err == nil {
		err = durable.Sync(d.vms)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "what VM %s held on this node could not all be removed", v).Because(err)
	}
	if g != nil {
		g.letGo()
		d.forget(v)
	}
	return nil
}

// leaveTime is how long the keeper may take to notice that somebody has left the console.
const leaveTime = time.Second

// attach opens the console. Who has just left it keeps nobody out.
func (g *guest) attach(ctx context.Context) (io.ReadWriteCloser, error) {
	clk := g.d.opt.Clock
	for until := clk.Boot() + leaveTime; ; {
		c, err := keeper.Attach(ctx, g.at.keeper())
		if !errors.Is(err, keeper.ErrBusy) || clk.Boot() >= until || clk.Sleep(ctx, 20*time.Millisecond) != nil {
			return c, err
		}
	}
}

// Console implements contract.Driver.
func (d *Driver) Console(ctx context.Context, r contract.Ref) (io.ReadWriteCloser, error) {
	if d.dead() {
		return nil, errClosed()
	}
	g, err := d.live(r)
	if err != nil {
		return nil, err
	}
	c, err := g.attach(ctx)
	switch {
	case errors.Is(err, keeper.ErrBusy):
		return nil, errs.New(errs.Conflict, "the console of VM %s is in use", r.VM)
	case err != nil:
		return nil, errs.New(errs.HostFailure, "the console of VM %s cannot be reached", r.VM).Because(err)
	}
	s := &session{ReadWriteCloser: c, closed: make(chan struct{})}
	d.background(func() {
		select {
		case <-d.life.Done():
			_ = s.Close()
		case <-s.closed:
		}
	})
	if d.dead() {
		_ = s.Close()
		return nil, errClosed()
	}
	return s, nil
}

// session is a console that ends with the driver, too, and before its Close
// returns.
type session struct {
	io.ReadWriteCloser
	once   sync.Once
	closed chan struct{}
}

// Close implements io.Closer.
func (s *session) Close() error {
	var err error
	s.once.Do(func() {
		err = s.ReadWriteCloser.Close()
		close(s.closed)
	})
	return err
}

// Log implements contract.Driver.
func (d *Driver) Log(ctx context.Context, v id.ID, follow bool) (io.ReadCloser, error) {
	if d.dead() {
		return nil, errClosed()
	}
	g := d.guest(v)
	if g == nil {
		return nil, notHere(v)
	}
	root, err := d.vms.OpenRoot(v.String())
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the log of VM %s cannot be opened", v).Because(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.life, cancel)
	r, err := keeper.Log(ctx, root, g.at.keeper(), follow && g.Status().Phase.OnNode())
	if err != nil {
		stop()
		cancel()
		_ = root.Close()
		return nil, errs.New(errs.HostFailure, "the log of VM %s cannot be read", v).Because(err)
	}
	return &logSession{ReadCloser: r, free: func() {
		stop()
		cancel()
		_ = root.Close()
	}}, nil
}

type logSession struct {
	io.ReadCloser
	free func()
	once sync.Once
}

// Close implements io.Closer.
func (l *logSession) Close() error {
	err := l.ReadCloser.Close()
	l.once.Do(l.free)
	return err
}

// sorted puts statuses in the order of their ids.
func sorted(all []contract.Status) []contract.Status {
	slices.SortFunc(all, func(a, b contract.Status) int {
		return strings.Compare(a.VM.String(), b.VM.String())
	})
	return all
}
