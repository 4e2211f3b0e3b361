package qemu

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"strings"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.Migrator = (*Driver)(nil)

// departed is a machine's last departure. Its key is nowhere else.
type departed struct {
	contract.Departure
	options contract.MoveOptions
	key     *ecdsa.PrivateKey
	// over has something in it once a warm move is to come to its end.
	over chan struct{}
}

// Depart implements contract.Migrator.
func (d *Driver) Depart(ctx context.Context, r contract.Ref, migration id.ID, o contract.MoveOptions) (contract.Departure, error) {
	var none contract.Departure
	o, err := o.Complete()
	if err != nil {
		return none, err
	}
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return none, err
	}
	defer leave()
	g, err := d.movable(ctx, r)
	if err != nil {
		return none, err
	}
	host, err := d.describe(ctx)
	if err != nil {
		return none, err
	}
	out := &departed{options: o, over: make(chan struct{}, 1), Departure: contract.Departure{
		Migration: migration, Hypervisor: "qemu", Version: host.Version,
		Paused: g.Status().Phase == vm.PhasePaused, Channels: o.Channels, Compression: o.Compression,
	}}
	if out.Hardware, err = json.Marshal(g.hardware()); err != nil {
		return none, err
	}
	if out.Disks, err = g.ownDisks(ctx); err != nil {
		return none, err
	}
	if out.Medium, err = d.Medium(ctx, r); err != nil {
		return none, err
	}
	if out.key, out.Request, err = newRequest(migration); err != nil {
		return none, errs.New(errs.HostFailure, "the keys of a move of VM %s cannot be made", r.VM).Because(err)
	}
	g.mu.Lock()
	g.departed = out
	g.mu.Unlock()
	return out.Departure, nil
}

// movable is started for a guest that can be moved.
func (d *Driver) movable(ctx context.Context, r contract.Ref) (*guest, error) {
	g, err := d.started(r)
	if err != nil {
		return nil, err
	}
	if g.rec.Type == vm.MachineMicro {
		return nil, errs.New(errs.Unsupported, "VM %s is a %s, which QEMU gives no version: it cannot be moved while it runs; stop it first", r.VM, vm.MachineMicro)
	}
	if g.Status().Phase == vm.PhaseStopping {
		return nil, errs.New(errs.InvalidState, "VM %s is being shut down", r.VM)
	}
	if seen, err := d.Glance(ctx, r); err == nil && seen.Frozen {
		return nil, errs.New(errs.InvalidState, "the file systems in the guest of VM %s are frozen: thaw them first", r.VM)
	}
	var m struct {
		Reasons []string `json:"blocked-reasons"`
	}
	if err := g.tell(ctx, "query-migrate", nil, &m); err != nil {
		return nil, err
	}
	if len(m.Reasons) > 0 {
		return nil, errs.New(errs.Unsupported, "VM %s cannot be moved while it runs: %s", r.VM, errs.Clip(strings.Join(m.Reasons, "; ")))
	}
	return g, nil
}

// hardware is what a machine got beside what it was asked to have.
func (g *guest) hardware() savedRecord {
	return savedRecord{Epoch: g.ref.Epoch, Type: g.rec.Type, Accel: g.rec.Accel, CPU: g.rec.CPU, Agent: g.rec.Agent, Layout: g.rec.Layout}
}

// ownDisks gives the disks that go along, with the sizes they have now.
func (g *guest) ownDisks(ctx context.Context) (map[id.ID]int64, error) {
	out := map[id.ID]int64{}
	for i, k := range g.rec.Machine.Disks {
		if !k.Moves() {
			continue
		}
		size, err := g.diskSize(ctx, diskName(i))
		if err != nil {
			return nil, err
		}
		out[k.ID] = size
	}
	return out, nil
}
