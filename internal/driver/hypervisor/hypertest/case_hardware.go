package hypertest

import (
	"slices"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func hardwareCases() []testCase {
	return []testCase{
		{"Launch gives the hardware that Describe names", givesHardware},
		{"Launch refuses hardware that the host does not have", refusesHardware},
	}
}

func givesHardware(b *bench) {
	about, err := b.Driver().Describe(b.ctx)
	if err != nil {
		b.Fatalf("describe: %v", err)
	}
	if !slices.Contains(about.CPUs, vm.CPUMax) || len(about.Machines) == 0 || slices.ContainsFunc(about.Machines, func(t string) bool { return !vm.ValidBoard(t) || t == vm.MachineQ35 }) {
		b.Fatalf("the host says it has %q and %q", about.Machines, about.CPUs)
	}
	var all []contract.Machine
	for _, hw := range []vm.Hardware{
		{Type: about.Machines[0], CPU: about.CPUs[0]},
		{Type: oldest(about.Machines), CPU: vm.CPUMax},
		{Type: vm.MachineQ35, CPU: about.CPUs[len(about.CPUs)-1]},
	} {
		m := b.Machine(b.T, Polite)
		m.Type, m.CPU = hw.Type, hw.CPU
		b.start(m)
		b.ready(m.VM)
		all = append(all, m)
	}
	b.clean(all...)
}

// oldest is the last version of q35.
func oldest(boards []string) string {
	boards = slices.DeleteFunc(slices.Clone(boards), func(t string) bool { return !vm.IsQ35(t) })
	return boards[len(boards)-1]
}

func refusesHardware(b *bench) {
	for what, c := range map[string]struct {
		hw   vm.Hardware
		code errs.Code
	}{
		"a board of the future": {vm.Hardware{Type: "pc-q35-999.9"}, errs.Unsupported},
		"a processor of nobody": {vm.Hardware{CPU: "Abacus-v1"}, errs.Unsupported},
		"what is no board":      {vm.Hardware{Type: "q35,accel=kvm"}, errs.InvalidField},
		"what has no kernel":    {vm.Hardware{Type: vm.MachineMicro}, errs.InvalidField},
		"what is no processor":  {vm.Hardware{CPU: "max,-sse2"}, errs.InvalidField},
	} {
		m := b.Machine(b.T, Polite)
		m.Type, m.CPU = c.hw.Type, c.hw.CPU
		_, err := b.Driver().Launch(b.ctx, m)
		b.wantCode(err, c.code, what)
	}
	about, err := b.Driver().Describe(b.ctx)
	if err == nil && about.Acceleration.Kind != "kvm" {
		m := b.Machine(b.T, Polite)
		m.CPU = vm.CPUHost
		_, err = b.Driver().Launch(b.ctx, m)
		b.wantCode(err, errs.Unsupported, "the host's processor without KVM")
	}
	b.clean()
}
