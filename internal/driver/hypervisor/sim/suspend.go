package sim

import (
	"context"
	"encoding/json"
	"os"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.Suspender = (*Driver)(nil)

// saved is what a simulated guest's memory comes down to.
type saved struct {
	VM    id.ID           `json:"vm"`
	Disks map[id.ID]int64 `json:"disks"`
}

// Suspend implements contract.Suspender.
func (d *Driver) Suspend(ctx context.Context, r contract.Ref, file string) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	h := d.host
	if err := h.wait(ctx, r.VM, TransitionPause); err != nil {
		return contract.Status{}, errs.New(errs.Timeout, "the memory of VM %s was not written in time, and it goes on", r.VM).Because(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g, ok := h.guests[r.VM]; ok && g.status.Ref == r && g.status.Phase == vm.PhaseSuspended {
		return g.status, nil
	}
	g, err := d.booted(r)
	if err == nil {
		err = h.faultsOf(r.VM).Suspend.take("suspend")
	}
	if err == nil {
		err = g.save(file)
	}
	if err != nil {
		return contract.Status{}, err
	}
	h.change(g, vm.PhaseSuspended, "")
	return g.status, nil
}

// booted is live for calls that a half launched guest has no use for. It is called
// with host.mu held.
func (d *Driver) booted(r contract.Ref) (*guest, error) {
	g, err := d.live(r)
	if err != nil {
		return nil, err
	}
	switch {
	case g.status.Phase == vm.PhaseStarting:
		err = errs.New(errs.InvalidState, "VM %s has not started yet", r.VM)
	case g.status.Phase == vm.PhaseIncoming:
		err = contract.ErrNotArrived(r.VM)
	case g.send != nil && g.send.Sent:
		err = contract.ErrSentAway(r.VM)
	}
	return g, err
}

// save writes the guest's memory.
func (g *guest) save(file string) error {
	b, err := json.Marshal(saved{VM: g.status.VM, Disks: g.disks})
	if err == nil {
		err = durable.Replace(file, b, false)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the saved memory of VM %s cannot be kept", g.status.VM).Because(err)
	}
	return nil
}

// checkSaved refuses a machine whose memory is not there, or another one's.
func checkSaved(m contract.Machine) error {
	if m.Incoming == "" {
		return nil
	}
	b, err := os.ReadFile(m.Incoming)
	if err != nil {
		return errs.New(errs.NotFound, "there is no saved memory to go on from on this node").Because(err)
	}
	var s saved
	if err := json.Unmarshal(b, &s); err != nil || s.VM != m.VM {
		return errs.New(errs.GuestFailure, "the saved memory of VM %s cannot be taken up; it is kept", m.VM)
	}
	return nil
}
