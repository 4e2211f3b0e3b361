package control

import (
	"context"
	"net/netip"
	"time"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// mostOfGuest bounds lists of a guest that a node hands on.
const mostOfGuest = 256

// Guest asks a VM's node what the guest says of itself now. Nothing of it is believed to
// be more than that: texts are bounded, addresses are addresses.
func (s *Service) Guest(ctx context.Context, nodes flows.Nodes, ref string) (nodelink.GuestReply, error) {
	var out nodelink.GuestReply
	on, err := s.Placed(ctx, ref)
	if err != nil {
		return out, err
	}
	if err := nodes.Call(ctx, on.Node, &nodelink.AskGuest{VM: on.VM, Epoch: on.Epoch}, &out); err != nil {
		return out, err
	}
	return cleaned(out), nil
}

func cleaned(g nodelink.GuestReply) nodelink.GuestReply {
	text := nodelink.Text
	if g.Agent != "absent" && g.Agent != "connected" {
		g.Agent = "unresponsive"
	}
	g.Version = text(g.Version)
	g.Interfaces = g.Interfaces[:min(len(g.Interfaces), mostOfGuest)]
	for i := range g.Interfaces {
		one := &g.Interfaces[i]
		one.Name, one.MAC = text(one.Name), text(one.MAC)
		var good []string
		for _, a := range one.Addresses[:min(len(one.Addresses), mostOfGuest)] {
			if p, err := netip.ParsePrefix(a); err == nil {
				good = append(good, p.String())
			}
		}
		one.Addresses = good
	}
	g.FileSystems = g.FileSystems[:min(len(g.FileSystems), mostOfGuest)]
	for i := range g.FileSystems {
		f := &g.FileSystems[i]
		f.Path, f.Type = text(f.Path), text(f.Type)
		f.TotalBytes = max(f.TotalBytes, 0)
		f.UsedBytes = min(max(f.UsedBytes, 0), f.TotalBytes)
	}
	if g.Memory != nil {
		g.Memory = believable(*g.Memory)
	}
	return g
}

// believable makes numbers of a node such as can be true; nil when nothing is left.
func believable(m nodelink.GuestMemory) *nodelink.GuestMemory {
	if m.TotalBytes <= 0 || m.TotalBytes > vm.MaxMemory {
		return nil
	}
	for _, n := range []*int64{&m.FreeBytes, &m.AvailableBytes, &m.CacheBytes} {
		*n = min(max(*n, 0), m.TotalBytes)
	}
	return &m
}

// RunInGuest runs a program in a VM's guest. That it is run is on record before it is:
// the program, and how many arguments it has; what they are may be a secret.
func (s *Service) RunInGuest(ctx context.Context, nodes flows.Nodes, c Caller, ref string, p vm.Program) (nodelink.RunReply, error) {
	var out nodelink.RunReply
	if err := p.Validate(); err != nil {
		return out, err
	}
	on, err := s.Placed(ctx, ref)
	if err != nil {
		return out, err
	}
	err = s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, on.VM.String())
		if err != nil {
			return err
		}
		r := c.record("vm.exec", "vm", v.Intent.ID, v.Intent.Name)
		r.ProjectID = &s.cfg.Project
		r.Detail = map[string]any{"program": errs.Clip(p.Command[0]), "arguments": len(p.Command) - 1, "input_bytes": len(p.Input)}
		return tx.AuditInsert(ctx, r)
	})
	if err != nil {
		return out, err
	}
	err = nodes.Call(ctx, on.Node, &nodelink.RunInGuest{
		VM: on.VM, Epoch: on.Epoch, Path: p.Command[0], Args: p.Command[1:], Input: p.Input, TimeMS: p.Time.Milliseconds(),
	}, &out)
	return out, err
}

// Freeze has a VM's guest freeze its file systems, for a bounded time after which its
// node thaws them, whoever is still there.
func (s *Service) Freeze(ctx context.Context, nodes flows.Nodes, c Caller, ref string, length time.Duration) (nodelink.FreezeReply, error) {
	var out nodelink.FreezeReply
	if err := vm.ValidateFreeze(length); err != nil {
		return out, err
	}
	on, err := s.Placed(ctx, ref)
	if err != nil {
		return out, err
	}
	err = s.recordIce(ctx, c, on, "vm.freeze", map[string]any{"seconds": int64(length / time.Second)}, func(v vm.View) error {
		_, err := vm.Decide(v, vm.Freeze)
		return err
	})
	if err != nil {
		return out, err
	}
	err = nodes.Call(ctx, on.Node, &nodelink.FreezeGuest{VM: on.VM, Epoch: on.Epoch, TimeMS: length.Milliseconds()}, &out)
	return out, err
}

// Thaw has them thawed before that; also while a job holds the VM, which may be waiting
// for it.
func (s *Service) Thaw(ctx context.Context, nodes flows.Nodes, c Caller, ref string) error {
	on, err := s.Placed(ctx, ref)
	if err != nil {
		return err
	}
	if err := s.recordIce(ctx, c, on, "vm.thaw", nil, func(vm.View) error { return nil }); err != nil {
		return err
	}
	return nodes.Call(ctx, on.Node, &nodelink.ThawGuest{VM: on.VM, Epoch: on.Epoch}, &nodelink.Done{})
}

// recordIce puts on record what is then asked of a guest, if may allows it.
func (s *Service) recordIce(ctx context.Context, c Caller, on Incarnation, action string, detail map[string]any, may func(vm.View) error) error {
	return s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, on.VM.String())
		if err != nil {
			return err
		}
		s.judge(&v)
		if err := may(v); err != nil {
			return err
		}
		r := c.record(action, "vm", v.Intent.ID, v.Intent.Name)
		r.ProjectID, r.Detail = &s.cfg.Project, detail
		return tx.AuditInsert(ctx, r)
	})
}
