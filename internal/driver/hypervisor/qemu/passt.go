package qemu

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// What a guest finds in a user-mode network: the same whichever program is it.
const (
	userAddress = "10.0.2.15"
	userNetmask = "24"
	userGateway = "10.0.2.2"
	userDNS     = "10.0.2.3"
	gatewayMAC  = "52:55:0a:00:02:02"
)

// passts are the processes that are a machine's user-mode networks, one for each
// interface that is joined to no bridge, and the descriptors at which QEMU finds their
// sockets, by slot.
func (d *Driver) passts(g *guest) (sockets map[int]int, aides []keeper.Aide, err error) {
	m := g.rec.Machine
	sockets = map[int]int{}
	first := keeper.FilesFD + len(imagesOf(m)) + len(tapFDs(m))
	for i, n := range m.NICs {
		if n.Bridge != "" {
			continue
		}
		argv, err := passtArgs(n, g.rec.UID)
		if err != nil {
			return nil, nil, err
		}
		sockets[i] = first + len(sockets)
		aides = append(aides, keeper.Aide{
			Name: fmt.Sprintf("the user-mode network of interface %d", i), Socket: g.at.net(i),
			Ready: g.at.net(i) + ".ready", Owner: g.rec.UID, Path: d.jail.passt, Argv: argv,
		})
	}
	return sockets, aides, nil
}

// passtArgs are the arguments of passt but those about its descriptors. The guest
// reaches what the host's network reaches, and not the host's own loopback.
func passtArgs(n contract.NIC, uid int) ([]string, error) {
	a := []string{
		"--foreground", "--quiet", "--stderr", "--runas", fmt.Sprintf("%d:%d", uid, uid),
		"--mac-addr", gatewayMAC, "--address", userAddress, "--netmask", userNetmask, "--gateway", userGateway,
		"--dns", userDNS, "--dns-forward", userDNS, "--no-map-gw",
	}
	if !hasDefaultRoute() {
		// it takes no other for a template; nothing is reached but what forwards lead
		a = append(a, "--interface", "lo", "--ipv4-only")
	}
	for _, f := range n.Forwards {
		host, err := f.Host()
		if err != nil {
			return nil, err
		}
		if !host.Addr().Is4() {
			return nil, errs.New(errs.Unsupported, "port forwards of %s: user-mode networking forwards from IPv4 addresses only", host)
		}
		option := "--tcp-ports"
		if f.Protocol == "udp" {
			option = "--udp-ports"
		}
		a = append(a, option, fmt.Sprintf("%s/%d:%d", host.Addr(), host.Port(), f.GuestPort))
	}
	return a, nil
}

// announce has the machine's interfaces make themselves known. A user-mode network
// that was started again sends to nobody in particular until it has seen where its
// guest is, and guests refuse that.
func (g *guest) announce() {
	err := g.tell(g.d.life, "announce-self", map[string]int{"initial": 50, "max": 550, "rounds": 5, "step": 50}, nil)
	if err != nil && g.d.life.Err() == nil {
		g.d.log.Warn("a guest was not announced to its network", "vm", g.ref.VM, "error", err)
	}
}

// hasDefaultRoute tells whether the host has a way out by IPv4.
func hasDefaultRoute() bool {
	b, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		// Destination, and the flag RTF_UP
		if len(f) > 3 && f[1] == "00000000" {
			flags, err := strconv.ParseUint(f[3], 16, 32)
			if err == nil && flags&uint64(net.FlagUp) != 0 {
				return true
			}
		}
	}
	return false
}
