package qemu

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// How far a landing has come, in asked.json. Without a word it is half made.
const (
	landingWaits = "waits" // QEMU listens
	landingOver  = "over"  // the machine was taken over: it is as any other
)

// arriving is what a landing is made of, and what is in no record.
type arriving struct {
	contract.Departure
	hardware savedRecord
	keys     landingRecord
}

// Receive implements contract.Migrator.
func (d *Driver) Receive(ctx context.Context, m contract.Machine, dep contract.Departure) (contract.Landing, error) {
	var none contract.Landing
	if err := m.Validate(); err != nil {
		return none, err
	}
	if err := dep.Lands(m); err != nil {
		return none, err
	}
	a := &arriving{Departure: dep}
	if dep.Hypervisor != "qemu" || json.Unmarshal(dep.Hardware, &a.hardware) != nil {
		return none, errs.New(errs.Unsupported, "a guest of %s cannot be moved to this node's QEMU", errs.Clip(dep.Hypervisor))
	}
	ctx, leave, err := d.begin(ctx, m.VM)
	if err != nil {
		return none, err
	}
	defer leave()
	if old := d.guest(m.VM); old != nil {
		if l := old.landing(m.Ref, dep.Migration); l != nil {
			return *l, nil
		}
		if err := mayReceive(m.Ref, old); err != nil {
			return none, err
		}
	}
	return d.receive(ctx, m, a)
}

// landing gives where a move lands, if the guest waits for just that.
func (g *guest) landing(r contract.Ref, migration id.ID) *contract.Landing {
	if l := g.rec.Landing; l != nil && l.Ref == r && l.Migration == migration && g.Status().Phase == vm.PhaseIncoming {
		return l
	}
	return nil
}

// mayReceive is mayLaunch for a machine that comes from another host.
func mayReceive(r contract.Ref, last *guest) error {
	s, done, err := mayLaunch(r, last)
	if err == nil && done {
		err = errs.New(errs.InvalidState, "VM %s runs here already", r.VM)
	}
	if err == nil && s.Phase == vm.PhaseStarting {
		last.abandon()
	}
	return err
}

// receive makes a landing.
func (d *Driver) receive(ctx context.Context, m contract.Machine, a *arriving) (contract.Landing, error) {
	landing, err := a.sign(m.Ref)
	if err != nil {
		return landing, err
	}
	if err := d.mayHave(m); err != nil {
		return landing, err
	}
	rec, err := d.fitted(ctx, m, a)
	if err != nil {
		return landing, err
	}
	rec.Landing = &landing
	s, err := d.launch(ctx, rec, a)
	if err == nil && s.Phase != vm.PhaseIncoming {
		err = errs.New(errs.HostFailure, "VM %s is %s instead of waiting for its memory", m.VM, s.Phase)
	}
	return landing, err
}

// sign makes what the two ends know each other by.
func (a *arriving) sign(r contract.Ref) (contract.Landing, error) {
	keys, pass, err := newAuthority(a.Migration, a.Request)
	a.keys = keys
	return contract.Landing{Ref: r, Migration: a.Migration, Pass: pass, Authority: keys.Authority}, err
}

// asDeparted gives the record of a machine that comes from another host: its board, its
// processor and its devices are those it has there.
func (h hostRecord) asDeparted(rec machineRecord, was savedRecord) (machineRecord, error) {
	switch {
	case was.Accel != rec.Accel:
		return rec, errs.New(errs.Unsupported, "VM %s runs under %s, and this node has %s: its processor would be another one",
			rec.Machine.VM, errs.Clip(was.Accel), rec.Accel)
	case was.Type == vm.MachineMicro || was.Layout > layoutNewest || !h.hasBoard(was.Type):
		return rec, errs.New(errs.Unsupported, "QEMU %s of this node has no machine type %s with the devices that VM %s has", h.Version, errs.Clip(was.Type), rec.Machine.VM)
	case was.CPU == "" || len(was.CPU) > 512:
		return rec, errs.New(errs.InvalidField, "the processor of VM %s is not named", rec.Machine.VM)
	}
	rec.Agent = was.Agent
	rec = rec.laidOut(was.Layout)
	rec.Type, rec.CPU = was.Type, was.CPU
	return rec, nil
}

// awaitMemory has a hypervisor that just started listen for its memory and its disks.
func (g *guest) awaitMemory(ctx context.Context, a *arriving) error {
	m := g.rec.Machine
	if err := g.limitDisks(ctx, m.Limits, false); err != nil {
		return err
	}
	if err := g.sameSizes(ctx, a.Disks); err != nil {
		return err
	}
	if err := g.write(landingFile, a.keys); err != nil {
		return err
	}
	if err := g.tellMigration(ctx, capabilities(a.Channels > 0), parameters(a.MoveOptions())); err != nil {
		return err
	}
	if len(a.Disks) > 0 {
		if err := g.exportDisks(ctx); err != nil {
			return err
		}
	}
	if err := g.tell(ctx, "migrate-incoming", object{"uri": "unix:" + g.seen(string(contract.StreamMemory))}, nil); err != nil {
		return err
	}
	return g.noteLanding(landingWaits)
}

// MoveOptions are those of the departure that both ends must know.
func (a *arriving) MoveOptions() contract.MoveOptions {
	return contract.MoveOptions{Channels: a.Channels, Compression: a.Compression}
}

// exportDisks lets the source write to the disks.
func (g *guest) exportDisks(ctx context.Context) error {
	err := g.tell(ctx, "nbd-server-start", object{
		"addr": object{"type": "unix", "data": object{"path": g.seen(string(contract.StreamDisks))}},
	}, nil)
	if err == nil {
		err = g.addExports(ctx)
	}
	return err
}

// addExports opens the doors of the disks.
func (g *guest) addExports(ctx context.Context) (err error) {
	for i, k := range g.rec.Machine.Disks {
		if err == nil && k.Moves() {
			err = g.tell(ctx, "block-export-add", object{
				"type": "nbd", "id": moveJob(diskName(i)), "node-name": diskName(i), "name": diskName(i), "writable": true,
			}, nil)
		}
	}
	return err
}

// noteLanding remembers, on disk, how far a landing has come.
func (g *guest) noteLanding(state string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	asked.Landing = state
	if err := g.write(askedFile, asked); err != nil {
		return err
	}
	g.asked = asked
	return nil
}

// awaits tells whether the guest waits for its memory, or has it and was not taken over.
// It is called with g.mu held.
func (g *guest) awaits() bool { return g.rec.Landing != nil && g.asked.Landing == landingWaits }

// Enter implements contract.Migrator.
func (d *Driver) Enter(ctx context.Context, r contract.Ref, s contract.Stream, c io.ReadWriteCloser) error {
	defer func() { _ = c.Close() }()
	g, as, err := d.awaiting(r, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	return g.letIn(ctx, c, s, as)
}

// awaiting gives a guest that waits for such a stream, and how its source is let in.
func (d *Driver) awaiting(r contract.Ref, s contract.Stream) (*guest, *tls.Config, error) {
	if d.dead() {
		return nil, nil, errClosed()
	}
	if !s.Valid() {
		return nil, nil, errs.New(errs.InvalidField, "%q is no stream of a move", errs.Clip(string(s)))
	}
	g, err := d.live(r)
	if err != nil {
		return nil, nil, err
	}
	if g.Status().Phase != vm.PhaseIncoming {
		return nil, nil, errs.New(errs.InvalidState, "VM %s waits for nothing", r.VM)
	}
	var keys landingRecord
	err = g.read(landingFile, &keys)
	if missing(err) {
		return nil, nil, errs.New(errs.InvalidState, "VM %s has arrived", r.VM)
	}
	var as *tls.Config
	if err == nil {
		as, err = keys.server()
	}
	if err != nil {
		return nil, nil, errs.New(errs.HostFailure, "a stream into VM %s cannot be opened", r.VM).Because(err)
	}
	return g, as, nil
}

// Arrived implements contract.Migrator. It waits outside of the VM's turn: Kill may come
// at any time.
func (d *Driver) Arrived(ctx context.Context, r contract.Ref) (contract.Status, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	for {
		g, err := d.awaited(r)
		if err != nil {
			return contract.Status{}, err
		}
		if s := g.Status(); s.Phase != vm.PhaseIncoming {
			return s, nil
		}
		if there, err := g.hasArrived(ctx); err == nil && there {
			return d.closeDoor(ctx, r)
		}
		if err := g.nudged(ctx); err != nil {
			if d.dead() {
				return contract.Status{}, errClosed()
			}
			return contract.Status{}, errs.New(errs.Timeout, "VM %s has not arrived yet", r.VM).Because(err)
		}
	}
}

// awaited is live for one that is to arrive, or has.
func (d *Driver) awaited(r contract.Ref) (*guest, error) {
	if g := d.guest(r.VM); g != nil && g.Status().Ref == r && !g.Status().Phase.OnNode() {
		return nil, notReceived(g.Status())
	}
	g, err := d.live(r)
	if err == nil && g.Status().Phase == vm.PhaseStarting {
		err = errs.New(errs.InvalidState, "VM %s has not started yet", r.VM)
	}
	return g, err
}

func notReceived(s contract.Status) error {
	return errs.New(errs.GuestFailure, "VM %s has ended before all of it had come: %s", s.VM, s.Reason)
}

// hasArrived tells whether a hypervisor has all memory.
func (g *guest) hasArrived(ctx context.Context) (bool, error) {
	var m migration
	err := g.tell(ctx, "query-migrate", nil, &m)
	return err == nil && m.Status == "completed", err
}

// closeDoor lets nobody in any more, where everything has come.
func (d *Driver) closeDoor(ctx context.Context, r contract.Ref) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	g, err := d.live(r)
	if err == nil {
		err = g.shut(ctx)
	}
	if err != nil {
		return contract.Status{}, err
	}
	return g.Status(), nil
}

// shut is closeDoor within the VM's turn. What is shut already stays so.
func (g *guest) shut(ctx context.Context) error {
	err := g.tell(ctx, "nbd-server-stop", nil, nil)
	if _, refused := errors.AsType[*qmp.Error](err); refused {
		err = nil // there is none
	}
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(g.at.records, landingFile)); err != nil && !missing(err) {
		return errs.New(errs.HostFailure, "the keys of a move of VM %s cannot be removed", g.ref.VM).Because(err)
	}
	return nil
}

// takeOver makes a machine that has arrived one of this host's. It is called in the VM's
// turn.
func (g *guest) takeOver(ctx context.Context) error {
	there, err := g.hasArrived(ctx)
	switch {
	case err != nil:
		return err
	case !there:
		return contract.ErrNotArrived(g.ref.VM)
	}
	if err := g.shut(ctx); err != nil {
		return err
	}
	return g.noteLanding(landingOver)
}
