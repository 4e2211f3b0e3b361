package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// firmwareDir is where UEFI firmware of guests keeps its variables: what to start
// from, whom to trust. They are the guest's as its disks are: made with its first
// start, copied with a clone, gone with the VM. Each kind of firmware has its own, so
// that a VM whose firmware is changed, and changed back, finds what it knew.
const firmwareDir = "firmware"

// mostVariables bounds a file of variables: a hypervisor may have written anything.
const mostVariables = 64 << 20

// variables is the file of a VM's kind of firmware; none for BIOS.
func (a *Agent) variables(v id.ID, firmware string) string {
	if firmware == "" || firmware == vm.FirmwareBIOS {
		return ""
	}
	return filepath.Join(a.cfg.DataDir, firmwareDir, v.String()+"."+firmware)
}

// withFirmware adds what a machine starts by.
func (a *Agent) withFirmware(m *hypervisor.Machine, firmware string) {
	m.Firmware, m.Variables = firmware, a.variables(m.VM, firmware)
}

// anew is the first start after the loss of what a firmware kept.
type anew struct {
	// Epoch of the incarnation; Ran: it has started, and users were told.
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
	Ran   bool           `json:"ran,omitempty"`
}

// lostVariables is what users are told then, for as long as that incarnation runs.
const lostVariables = "the variables of its UEFI firmware were not on its node any more and were made anew: its boot order, and keys that it had enrolled, are lost"

// lookForVariables notes before a launch whether its firmware has to begin anew although
// the VM had started by it. A launch that fails leaves the telling to the next one.
func (a *Agent) lookForVariables(g *guest, m hypervisor.Machine) error {
	rec := g.snapshot()
	next := rec.Anew
	switch {
	case m.UEFI() && slices.Contains(rec.Variables, m.Firmware) && gone(m.Variables):
		a.log.Warn("the variables of a VM's firmware were lost: they are made anew", "vm", m.VM, "firmware", m.Firmware)
		next = &anew{Epoch: m.Epoch}
	case next != nil && next.Epoch != m.Epoch && next.Ran:
		next = nil
	case next != nil && next.Epoch != m.Epoch:
		next = &anew{Epoch: m.Epoch}
	}
	a.reports.explain(m.VM, next)
	if next == rec.Anew {
		return nil
	}
	return g.change(a.records, func(r *record) { r.Anew = next })
}

func gone(file string) bool {
	_, err := os.Lstat(file)
	return errors.Is(err, fs.ErrNotExist)
}

// foundVariables notes after a launch which there are now.
func (a *Agent) foundVariables(g *guest, m hypervisor.Machine) error {
	rec := g.snapshot()
	had := !m.UEFI() || slices.Contains(rec.Variables, m.Firmware)
	if had && (rec.Anew == nil || rec.Anew.Ran) {
		return nil
	}
	return g.change(a.records, func(r *record) {
		if !had {
			r.Variables = append(slices.Clone(r.Variables), m.Firmware)
		}
		if r.Anew != nil {
			r.Anew = &anew{Epoch: r.Anew.Epoch, Ran: true}
		}
	})
}

// explain says of which incarnation lostVariables is the reason; nil for none.
func (r *reporter) explain(v id.ID, is *anew) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.anew, v)
	if is != nil {
		r.anew[v] = is.Epoch
	}
}

// why gives the reason of a status: its own, or what was found before its start. It is
// called with r.mu held.
func (r *reporter) why(s hypervisor.Status) string {
	if epoch, ok := r.anew[s.VM]; ok && epoch == s.Epoch && s.Phase == vm.PhaseRunning && s.Reason == "" {
		return lostVariables
	}
	return s.Reason
}

// copyVariables gives a clone what its original's firmware knows. That it has them is on
// record as if it had started: where they are lost before its first start, or those of
// the original are already, that start says so.
func (a *Agent) copyVariables(g *guest, to, from id.ID) error {
	has := slices.Clone(a.guest(from).snapshot().Variables)
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		there, err := a.copyVariable(a.variables(to, kind), a.variables(from, kind))
		if err != nil {
			return errs.New(errs.HostFailure, "the variables of the firmware of VM %s cannot be copied", from).Because(err)
		}
		if there && !slices.Contains(has, kind) {
			has = append(has, kind)
		}
	}
	if len(has) == 0 {
		return nil
	}
	return g.change(a.records, func(r *record) { r.Variables = has })
}

// copyVariable copies a file of variables; false where there is none.
func (a *Agent) copyVariable(to, from string) (there bool, err error) {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && info.Size() > mostVariables {
		err = errors.New("there are too many")
	}
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	return true, durable.Replace(to, b, !a.cfg.Volatile)
}

// forgetVariables removes all of a VM's.
func (a *Agent) forgetVariables(v id.ID) error {
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		err := os.Remove(a.variables(v, kind) + partSuffix) // broken off as it came
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(a.variables(v, kind))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.HostFailure, "the variables of the firmware of VM %s cannot be removed", v).Because(err)
		}
	}
	return nil
}
