package sim

import (
	"context"
	"net/netip"
	"strings"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.Guester = (*Driver)(nil)

// agentVersion is what simulated guests say of their agent.
const agentVersion = "simulated"

// Guest implements contract.Guester: every simulated guest that executes has an agent.
func (d *Driver) Guest(_ context.Context, r contract.Ref) (contract.Guest, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.booted(r)
	if err != nil {
		return contract.Guest{Agent: contract.AgentAbsent}, err
	}
	if g.status.Phase == vm.PhasePaused {
		return contract.Guest{Agent: contract.AgentUnresponsive}, nil
	}
	return contract.Guest{
		Agent: contract.AgentConnected, Version: agentVersion,
		Interfaces: []contract.GuestInterface{{
			Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(d.Foretell(r)[0], 8)},
		}},
		FileSystems: []contract.GuestFileSystem{{Path: "/", Type: "ext4", TotalBytes: 10 << 30, UsedBytes: 3 << 30}},
		Memory:      &contract.GuestMemory{TotalBytes: 512 << 20, FreeBytes: 128 << 20, AvailableBytes: 256 << 20, CacheBytes: 128 << 20},
	}, nil
}

// Foretell gives the addresses that a guest will say it has.
func (d *Driver) Foretell(r contract.Ref) []netip.Addr {
	v := r.VM
	return []netip.Addr{netip.AddrFrom4([4]byte{10, v[13], v[14], v[15]})}
}

// Run implements contract.Guester. A simulated guest knows echo, cat, true and false.
func (d *Driver) Run(_ context.Context, r contract.Ref, p contract.Program) (contract.Outcome, error) {
	if err := p.Validate(); err != nil {
		return contract.Outcome{}, err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.booted(r)
	if err != nil {
		return contract.Outcome{}, err
	}
	if g.status.Phase == vm.PhasePaused {
		return contract.Outcome{}, errs.New(errs.GuestAgent, "the agent in the guest of VM %s does not answer", r.VM)
	}
	switch p.Path[strings.LastIndexByte(p.Path, '/')+1:] {
	case "echo":
		return contract.Outcome{Output: []byte(strings.Join(p.Args, " ") + "\n")}, nil
	case "cat":
		return contract.Outcome{Output: p.Input}, nil
	case "true":
		return contract.Outcome{}, nil
	case "false":
		return contract.Outcome{Code: 1}, nil
	}
	return contract.Outcome{}, errs.New(errs.GuestAgent, "the agent in the guest of VM %s refused: there is no program %q in a simulated guest", r.VM, errs.Clip(p.Path))
}
