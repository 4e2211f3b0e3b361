package sim

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Memory is that of a guest that changes it while it is sent.
type Memory struct {
	// Bytes of it in all, and Hot that the guest changes over and over.
	Bytes int64 `json:"bytes"`
	Hot   int64 `json:"hot"`
	// Rate at which it is sent, and Dirty at which the guest changes it, in bytes per
	// second; a Rate of 0 sends nothing.
	Rate  int64 `json:"rate"`
	Dirty int64 `json:"dirty"`
}

// memoryTick is how often memory on its way is looked at.
const memoryTick = 10 * time.Millisecond

// rounds sends memory that changes, until the rest fits into the downtime.
func (m *move) rounds(ctx context.Context) error {
	h := m.d.host
	h.mu.Lock()
	memory := h.faultsOf(m.to.Ref.VM).Memory
	h.mu.Unlock()
	if memory == nil {
		return nil
	}
	m.at.MemoryRemaining, m.at.Round = memory.Bytes, 1
	last := h.opt.Clock.Boot()
	changed := 0.0
	for {
		if err := h.opt.Clock.Sleep(ctx, memoryTick); err != nil {
			return err
		}
		now := h.opt.Clock.Boot()
		passed := (now - last).Seconds()
		last = now
		means := m.means()
		m.at.Rate, m.at.Throttle = memory.Rate, means.Throttle
		m.at.DirtyRate = memory.Dirty * int64(100-means.Throttle) / 100
		sent := min(int64(passed*float64(memory.Rate)), m.at.MemoryRemaining)
		changed = min(changed+passed*float64(m.at.DirtyRate), float64(memory.Hot))
		m.at.MemoryMoved += sent
		m.at.MemoryRemaining -= sent
		fits := int64(means.Downtime.Seconds() * float64(memory.Rate))
		if m.at.MemoryRemaining <= fits { // what changed meanwhile goes again
			if m.at.MemoryRemaining+int64(changed) <= fits {
				return nil
			}
			m.at.Round++
			m.at.MemoryRemaining += int64(changed)
			changed = 0
		}
		m.report(contract.StageMemory)
	}
}

// means are what a move may do now.
func (m *move) means() contract.Adjustment {
	m.d.host.mu.Lock()
	defer m.d.host.mu.Unlock()
	return m.g.means
}

// Adjust implements contract.Migrator.
func (d *Driver) Adjust(_ context.Context, r contract.Ref, a contract.Adjustment) error {
	if err := a.Validate(); err != nil {
		return err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.live(r)
	switch {
	case err != nil:
		return err
	case g.send == nil || g.send.Sent:
		return contract.ErrNotSending(r.VM)
	}
	if a.Downtime > 0 {
		g.means.Downtime = a.Downtime
	}
	if a.Throttle > 0 {
		g.means.Throttle = a.Throttle
	}
	return nil
}

var _ contract.Sampler = (*Driver)(nil)

// Sample implements contract.Sampler: a simulated guest changes what it is told to, and
// nothing by default.
func (d *Driver) Sample(_ context.Context, r contract.Ref) (int64, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.booted(r)
	if err == nil && g.send != nil {
		err = errs.New(errs.InvalidState, "VM %s is being moved", r.VM)
	}
	if m := d.host.faultsOf(r.VM).Memory; err == nil && m != nil {
		return min(m.Dirty, m.Hot), nil // within a second
	}
	return 0, err
}
