package sim

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"io"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// landing is what a guest in phase incoming waits for.
type landing struct {
	Migration id.ID  `json:"migration"`
	Request   []byte `json:"request"`
	Pass      []byte `json:"pass"`
	// Disks: are they there? Arrived: is all?
	Disks   bool `json:"disks,omitempty"`
	Arrived bool `json:"arrived,omitempty"`
}

// Receive implements contract.Migrator.
func (d *Driver) Receive(ctx context.Context, m contract.Machine, dep contract.Departure) (contract.Landing, error) {
	if err := mayReceive(m, dep); err != nil {
		return contract.Landing{}, err
	}
	ctx, leave, err := d.begin(ctx, m.VM)
	if err != nil {
		return contract.Landing{}, err
	}
	defer leave()
	h := d.host
	if err := h.wait(ctx, m.VM, TransitionReceive); err != nil {
		return contract.Landing{}, errs.New(errs.Timeout, "VM %s was not awaited in time", m.VM).Because(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g, ok := h.guests[m.VM]; ok && g.awaits(m.Ref, dep.Migration) {
		return g.landing.of(m.Ref), nil
	}
	g, err := h.land(m, dep)
	if err != nil {
		return contract.Landing{}, err
	}
	return g.landing.of(m.Ref), nil
}

// awaits tells whether a guest waits for just that move.
func (g *guest) awaits(r contract.Ref, migration id.ID) bool {
	return g.status.Ref == r && g.status.Phase == vm.PhaseIncoming && g.landing.Migration == migration
}

// land makes a guest that waits. It is called with h.mu held.
func (h *Host) land(m contract.Machine, dep contract.Departure) (*guest, error) {
	if err := h.faultsOf(m.VM).Receive.take("receive"); err != nil {
		return nil, err
	}
	g, running, err := h.prepare(m)
	if err == nil && running {
		err = errs.New(errs.InvalidState, "VM %s runs here already", m.VM)
	}
	if err != nil {
		return nil, err
	}
	g.landing = &landing{Migration: dep.Migration, Request: dep.Request, Pass: make([]byte, 32)}
	_, _ = rand.Read(g.landing.Pass)
	h.change(g, vm.PhaseIncoming, "")
	return g, nil
}

func (l *landing) of(r contract.Ref) contract.Landing {
	return contract.Landing{Ref: r, Migration: l.Migration, Pass: l.Pass}
}

// mayReceive refuses what this host cannot have.
func mayReceive(m contract.Machine, dep contract.Departure) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if err := dep.Lands(m); err != nil {
		return err
	}
	if dep.Hypervisor != "sim" {
		return errs.New(errs.Unsupported, "a guest of %s cannot be moved to a simulated host", errs.Clip(dep.Hypervisor))
	}
	if err := ready(m); err != nil {
		return err
	}
	return mayJoin(m)
}

// Enter implements contract.Migrator.
func (d *Driver) Enter(ctx context.Context, r contract.Ref, s contract.Stream, c io.ReadWriteCloser) error {
	defer func() { _ = c.Close() }()
	g, err := d.awaiting(r, s)
	if err != nil {
		return err
	}
	for _, ends := range []context.Context{ctx, d.life, g.done} {
		defer context.AfterFunc(ends, func() { _ = c.Close() })()
	}
	d.host.take(g, newLine(c), s)
	d.host.flush()
	return nil
}

// awaiting gives a guest that waits for such a stream.
func (d *Driver) awaiting(r contract.Ref, s contract.Stream) (*guest, error) {
	if d.dead() {
		return nil, errDead()
	}
	if !s.Valid() {
		return nil, errs.New(errs.InvalidField, "%q is no stream of a move", errs.Clip(string(s)))
	}
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := d.live(r)
	if err != nil {
		return nil, err
	}
	if g.status.Phase != vm.PhaseIncoming || g.landing.Arrived {
		return nil, errs.New(errs.InvalidState, "VM %s waits for nothing", r.VM)
	}
	return g, nil
}

// take reads a stream. Whoever does not say first that he is the source is left alone.
func (h *Host) take(g *guest, l line, s contract.Stream) {
	var who message
	if l.in.Decode(&who) != nil || !g.landing.believes(who) || l.answer(true) != nil || s == contract.StreamAgain {
		return
	}
	for {
		var m message
		if err := l.in.Decode(&m); err != nil {
			h.broken(g, s)
			return
		}
		if m.End || m.State != nil {
			_ = l.answer(h.accept(g, m)) // who does not get it takes it for broken, and goes on
			return
		}
	}
}

// believes tells whether a message is the source's first.
func (l *landing) believes(m message) bool {
	return m.Migration == l.Migration && subtle.ConstantTimeCompare(m.Request, l.Request)&subtle.ConstantTimeCompare(m.Shown, l.Pass) == 1
}

// accept takes the last message of a stream, and tells whether it is good.
func (h *Host) accept(g *guest, m message) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.status.Phase != vm.PhaseIncoming || g.landing.Arrived {
		return false
	}
	if m.End {
		g.landing.Disks = true
		h.save(g)
		return true
	}
	if !g.landing.Disks {
		h.change(g, vm.PhaseExited, contract.NotReceived)
		return false
	}
	for k, size := range m.State.Disks {
		if _, ok := g.disks[k]; ok {
			g.disks[k] = size
		}
	}
	g.medium, g.frozen, g.landing.Arrived = m.State.Medium, m.State.Frozen, true
	h.save(g)
	close(g.arrived)
	return true
}

// broken ends a guest whose memory stopped coming.
func (h *Host) broken(g *guest, s contract.Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s == contract.StreamMemory && g.status.Phase == vm.PhaseIncoming && !g.landing.Arrived {
		h.change(g, vm.PhaseExited, contract.NotReceived)
	}
}

// Arrived implements contract.Migrator.
func (d *Driver) Arrived(ctx context.Context, r contract.Ref) (contract.Status, error) {
	g, err := d.awaited(r)
	if err != nil {
		return contract.Status{}, err
	}
	select {
	case <-g.arrived:
	case <-g.done.Done():
	case <-d.life.Done():
		return contract.Status{}, errDead()
	case <-ctx.Done():
		return contract.Status{}, errs.New(errs.Timeout, "VM %s has not arrived yet", r.VM).Because(ctx.Err())
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if !g.status.Phase.OnNode() {
		return contract.Status{}, notReceived(g)
	}
	return g.status, nil
}

// awaited is live for one that is to arrive, or has.
func (d *Driver) awaited(r contract.Ref) (*guest, error) {
	if d.dead() {
		return nil, errDead()
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if g, ok := d.host.guests[r.VM]; ok && g.status.Ref == r && !g.status.Phase.OnNode() {
		return nil, notReceived(g)
	}
	g, err := d.live(r)
	if err == nil && g.status.Phase == vm.PhaseStarting {
		err = errs.New(errs.InvalidState, "VM %s has not started yet", r.VM)
	}
	return g, err
}

func notReceived(g *guest) error {
	return errs.New(errs.GuestFailure, "VM %s has ended before all of it had come: %s", g.status.VM, g.status.Reason)
}
