package sim

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/outbox"
	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Driver is an agent's hold on a Host.
type Driver struct {
	host *Host
	out  *outbox.Outbox
	// life ends with Close or Die and cuts short every call under way.
	life context.Context
	end  context.CancelFunc
	once sync.Once
}

var _ contract.Driver = (*Driver)(nil)

// New opens a driver on a host.
func New(h *Host, sink contract.Sink) *Driver {
	d := &Driver{host: h, out: outbox.New(sink)}
	d.life, d.end = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drivers[d] = struct{}{}
	return d
}

// Close implements contract.Driver.
func (d *Driver) Close() error {
	d.once.Do(func() {
		d.end()
		d.host.mu.Lock()
		delete(d.host.drivers, d)
		for _, g := range d.host.guests {
			if g.console != nil && g.console.driver == d {
				g.console = nil // its reader ends with the driver's life
			}
		}
		d.host.mu.Unlock()
		d.out.Close()
	})
	return nil
}

// Die ends the driver as kill -9 ends an agent: calls under way stop where they
// are, what they had done so far stays on the host.
func (d *Driver) Die() { _ = d.Close() }

// dead tells whether the agent behind this driver is gone.
func (d *Driver) dead() bool { return d.life.Err() != nil }

func errDead() error {
	return errs.New(errs.Cancelled, "the hypervisor driver was closed")
}

// begin takes the VM's turn; the context it gives ends with the caller's or with
// the driver.
func (d *Driver) begin(ctx context.Context, v id.ID) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.life, cancel)
	free := func() { stop(); cancel() }
	if d.dead() {
		free()
		return nil, nil, errDead()
	}
	leave, err := d.host.turns.Take(ctx, v)
	if err != nil {
		free()
		return nil, nil, err
	}
	return ctx, func() {
		leave()
		free()
		d.host.flush()
	}, nil
}

// Capabilities implements contract.Driver.
func (d *Driver) Capabilities() contract.Capabilities {
	return contract.Capabilities{Pause: true, GrowDisk: true, Suspend: true, Migrate: true, Warm: true, Shutdown: true, Media: true, Console: true, Display: true, GuestAgent: true, Freeze: true, UserNetwork: true, CPUWeight: true, CPUCap: true, DiskLimits: true, Bridges: []string{Bridge}}
}

// Describe implements contract.Driver.
func (d *Driver) Describe(context.Context) (contract.Description, error) {
	return contract.Description{
		Hypervisor: "sim",
		Version:    "1",
		Acceleration: contract.Acceleration{
			Kind:   "simulated",
			Reason: "guests of this node are simulated; nothing executes",
		},
		Machines: slices.Clone(machines), CPUs: slices.Clone(cpus), Firmware: slices.Clone(firmware),
	}, nil
}

// live gives the guest a call means. It is called with host.mu held.
func (d *Driver) live(r contract.Ref) (*guest, error) {
	g, ok := d.host.guests[r.VM]
	if !ok {
		return nil, errs.New(errs.NotFound, "VM %s is not on this node", r.VM)
	}
	if g.status.Epoch != r.Epoch {
		return nil, stale(r, g.status)
	}
	if !g.status.Phase.OnNode() {
		return nil, errs.New(errs.InvalidState, "VM %s does not run: %s %s", r.VM, g.status.Phase, g.status.Reason)
	}
	return g, nil
}

// changes has a guest that has booted be otherwise, and remembers it. The change is called
// with the host's mu held.
func (d *Driver) changes(ctx context.Context, r contract.Ref, change func(*guest) error) error {
	_, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return err
	}
	defer leave()
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := d.booted(r)
	if err != nil {
		return err
	}
	if err := change(g); err != nil {
		return err
	}
	h.save(g)
	return nil
}

func stale(r contract.Ref, s contract.Status) error {
	return errs.New(errs.StaleEpoch, "VM %s is at owner epoch %d here; the call names epoch %d", r.VM, s.Epoch, r.Epoch)
}

// Pause implements contract.Driver.
func (d *Driver) Pause(ctx context.Context, r contract.Ref) (contract.Status, error) {
	return d.step(ctx, r, TransitionPause, vm.PhasePaused)
}

// Resume implements contract.Driver.
func (d *Driver) Resume(ctx context.Context, r contract.Ref) (contract.Status, error) {
	return d.step(ctx, r, TransitionResume, vm.PhaseRunning)
}

// step takes a live guest to a phase.
func (d *Driver) step(ctx context.Context, r contract.Ref, t Transition, to vm.Phase) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	h := d.host
	h.mu.Lock()
	g, err := d.live(r)
	if err != nil {
		h.mu.Unlock()
		return contract.Status{}, err
	}
	s, done, err := g.mayStep(to)
	h.mu.Unlock()
	if done || err != nil {
		return s, err
	}
	if err := h.wait(ctx, r.VM, t); err != nil {
		return contract.Status{}, errs.New(errs.Timeout, "%s of VM %s did not end in time", t, r.VM).Because(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g, err = d.live(r); err != nil {
		return contract.Status{}, err
	}
	d.settle(g, to)
	return g.status, nil
}

// mayStep tells whether a guest can be taken to a phase, and whether it is there.
func (g *guest) mayStep(to vm.Phase) (s contract.Status, done bool, err error) {
	now := g.status.Phase
	switch {
	case now == vm.PhaseStarting:
		return s, false, errs.New(errs.InvalidState, "VM %s has not started yet", g.status.VM)
	case now == vm.PhaseIncoming && !g.landing.Arrived:
		return s, false, contract.ErrNotArrived(g.status.VM)
	case now == vm.PhaseIncoming:
		return s, false, nil
	}
	return g.status, (now == vm.PhasePaused) == (to == vm.PhasePaused), nil
}

// settle applies pause or resume; a guest that was asked to shut down meanwhile
// acts on it as soon as it executes.
func (d *Driver) settle(g *guest, to vm.Phase) {
	g.landing = nil // it was taken over
	if to != vm.PhasePaused {
		g.send = nil // and it was not
	}
	switch {
	case to == vm.PhasePaused:
		d.host.change(g, to, "")
	case g.asked:
		d.host.change(g, vm.PhaseStopping, "")
		d.host.obey(g)
	default:
		d.host.change(g, to, "")
	}
}

// Shutdown implements contract.Driver.
func (d *Driver) Shutdown(ctx context.Context, r contract.Ref) error {
	_, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return err
	}
	defer leave()
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if g, ok := h.guests[r.VM]; ok && g.status.Ref == r && !g.status.Phase.OnNode() {
		return nil
	}
	g, err := d.live(r)
	if err != nil {
		return err
	}
	if g.status.Phase == vm.PhaseIncoming || g.send != nil {
		_, err := d.booted(r)
		return err
	}
	g.asked = true
	if g.status.Phase == vm.PhaseRunning {
		h.change(g, vm.PhaseStopping, "")
	}
	if g.status.Phase == vm.PhaseStopping {
		h.obey(g)
	}
	return nil
}

// Kill implements contract.Driver.
func (d *Driver) Kill(ctx context.Context, r contract.Ref) (contract.Status, error) {
	d.host.breakSend(r)
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	h := d.host
	h.mu.Lock()
	s, done, err := d.beforeKill(r)
	h.mu.Unlock()
	if done || err != nil {
		return s, err
	}
	if err := h.wait(ctx, r.VM, TransitionKill); err != nil {
		return contract.Status{}, errs.New(errs.Timeout, "VM %s is not proven gone", r.VM).Because(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.guests[r.VM]
	if !ok {
		return contract.Status{Ref: r, Phase: vm.PhaseExited, Reason: "nothing was running"}, nil
	}
	if g.status.Phase.OnNode() {
		h.change(g, vm.PhaseExited, "killed on request")
	}
	return g.status, nil
}

// beforeKill answers a kill that has nothing to do, or that is refused.
func (d *Driver) beforeKill(r contract.Ref) (contract.Status, bool, error) {
	g, ok := d.host.guests[r.VM]
	if !ok {
		return contract.Status{Ref: r, Phase: vm.PhaseExited, Reason: "nothing was running"}, true, nil
	}
	if !g.status.Phase.OnNode() {
		return g.status, true, nil
	}
	if g.status.Epoch != r.Epoch {
		return contract.Status{}, false, stale(r, g.status)
	}
	return contract.Status{}, false, d.host.faultsOf(r.VM).Kill.take("kill")
}

// Inspect implements contract.Driver.
func (d *Driver) Inspect(_ context.Context, v id.ID) (contract.Status, error) {
	if d.dead() {
		return contract.Status{}, errDead()
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, ok := d.host.guests[v]
	if !ok {
		return contract.Status{}, errs.New(errs.NotFound, "VM %s is not on this node", v)
	}
	return g.status, nil
}

// Adopt implements contract.Driver.
func (d *Driver) Adopt(context.Context) ([]contract.Status, error) {
	if d.dead() {
		return nil, errDead()
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	out := make([]contract.Status, 0, len(d.host.guests))
	for _, g := range d.host.guests {
		if g.send != nil && !g.send.Sent {
			d.host.goOn(g)
		}
		if g.status.Phase == vm.PhaseStopping && !g.obeying {
			// it was asked, and does not act on it
			g.asked, g.status.Phase, g.status.Since = false, vm.PhaseRunning, d.host.opt.Clock.Now()
			d.host.save(g)
		}
		out = append(out, g.status)
	}
	slices.SortFunc(out, func(a, b contract.Status) int { return bytes.Compare(a.VM[:], b.VM[:]) })
	return out, nil
}

// Release implements contract.Driver.
func (d *Driver) Release(ctx context.Context, v id.ID) error {
	_, leave, err := d.begin(ctx, v)
	if err != nil {
		return err
	}
	defer leave()
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, ok := d.host.guests[v]
	if !ok {
		return nil
	}
	if g.status.Phase.OnNode() {
		return errs.New(errs.InvalidState, "VM %s still runs on this node: stop it first", v)
	}
	d.host.forget(v)
	return nil
}

// Log implements contract.Driver.
func (d *Driver) Log(ctx context.Context, v id.ID, follow bool) (io.ReadCloser, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, ok := d.host.guests[v]
	if !ok {
		return nil, errs.New(errs.NotFound, "VM %s is not on this node", v)
	}
	return d.tail(ctx, g.serial, 0, follow), nil
}

// tail reads a console's bytes until the driver is closed, too.
func (d *Driver) tail(ctx context.Context, r *serial.Ring, from int64, follow bool) io.ReadCloser {
	rd := r.Reader(ctx, from, follow)
	return &tail{ReadCloser: rd, stop: context.AfterFunc(d.life, func() { _ = rd.Close() })}
}

type tail struct {
	io.ReadCloser
	stop func() bool
}

// Close implements io.Closer.
func (t *tail) Close() error {
	t.stop()
	return t.ReadCloser.Close()
}
