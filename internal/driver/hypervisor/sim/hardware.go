package sim

import (
	"os"
	"slices"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// What guests of a simulated host can be made of. There is no processor that could be
// given to them.
var (
	machines = []string{"pc-q35-9.2", "pc-q35-8.2", "pc-q35-7.2", vm.MachineMicro}
	firmware = []string{vm.FirmwareBIOS, vm.FirmwareUEFI, vm.FirmwareSecure}
	cpus     = []string{vm.CPUBaseline2, vm.CPUBaseline3, vm.CPUMax}
)

// fits refuses hardware that the host does not have.
func fits(m contract.Machine) error {
	if m.Type != "" && m.Type != vm.MachineQ35 && !slices.Contains(machines, m.Type) {
		return errs.New(errs.Unsupported, "this node has no machine type %s", m.Type)
	}
	if m.CPU != "" && !slices.Contains(cpus, m.CPU) {
		return errs.New(errs.Unsupported, "this node does not offer CPU model %s: its guests are simulated", m.CPU)
	}
	return nil
}

// ready makes what a machine needs beside its disks, and refuses what it cannot have.
func ready(m contract.Machine) error {
	if err := fits(m); err != nil {
		return err
	}
	return keepVariables(m)
}

// keepVariables makes the file of a machine's variables, as a real firmware does.
func keepVariables(m contract.Machine) error {
	if _, err := os.Stat(m.Variables); m.Variables == "" || err == nil {
		return nil
	}
	if err := os.WriteFile(m.Variables, []byte("simulated variables"), 0o600); err != nil {
		return errs.New(errs.HostFailure, "the variables of VM %s cannot be made", m.VM).Because(err)
	}
	return nil
}
