package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
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

// copyVariables gives a clone what its original's firmware knows.
func (a *Agent) copyVariables(to, from id.ID) error {
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		source := a.variables(from, kind)
		info, err := os.Stat(source)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var b []byte
		if err == nil && info.Size() > mostVariables {
			err = errors.New("there are too many")
		}
		if err == nil {
			b, err = os.ReadFile(source)
		}
		if err == nil {
			err = durable.Replace(a.variables(to, kind), b, !a.cfg.Volatile)
		}
		if err != nil {
			return errs.New(errs.HostFailure, "the variables of the firmware of VM %s cannot be copied", from).Because(err)
		}
	}
	return nil
}

// forgetVariables removes all of a VM's.
func (a *Agent) forgetVariables(v id.ID) error {
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		if err := os.Remove(a.variables(v, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.HostFailure, "the variables of the firmware of VM %s cannot be removed", v).Because(err)
		}
	}
	return nil
}
