package lan

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/mdns"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// lookAgain is how often interfaces are looked at.
const lookAgain = 30 * time.Second

// quiet is for the library, which logs what strangers send.
var quiet = log.New(io.Discard, "", 0)

// Announce answers whoever asks for servers, on every interface, until ctx ends.
// Addresses may name loopback, which is left out, and every address (0.0.0.0, ::),
// which becomes those of the interface.
func Announce(ctx context.Context, a Announcement, clk clock.Clock, l *slog.Logger) {
	on := map[string]*station{}
	defer func() {
		for _, s := range on {
			s.close()
		}
	}()
	for {
		now := map[string]bool{}
		for _, p := range places() {
			mine := a
			mine.Addresses = reachable(a.Addresses, p.ips)
			if len(mine.Addresses) == 0 {
				continue
			}
			now[p.iface.Name] = true
			if old := on[p.iface.Name]; old != nil && slices.Equal(old.addresses, mine.Addresses) {
				continue
			}
			on[p.iface.Name].close()
			s, err := open(p, mine)
			if err != nil { // told once, and tried again when its addresses change
				l.Info("servers cannot be announced on an interface", "interface", p.iface.Name, "err", err)
				s = &station{addresses: mine.Addresses}
			}
			on[p.iface.Name] = s
		}
		for name, s := range on {
			if !now[name] {
				s.close()
				delete(on, name)
			}
		}
		if clk.Sleep(ctx, lookAgain) != nil {
			return
		}
	}
}

// station answers on one interface, unless that failed.
type station struct {
	server    *mdns.Server
	addresses []string
}

func open(p place, a Announcement) (*station, error) {
	ips := make([]net.IP, 0, len(p.ips))
	for _, ip := range p.ips {
		ips = append(ips, ip.AsSlice())
	}
	// host and port of the SRV record are for browsers of the network: our own
	// addresses are in the text
	const port = 443
	name := "novacron-" + a.Server
	zone, err := mdns.NewMDNSService(name, service, "", name+".local.", port, ips, a.text())
	if err != nil {
		return nil, err
	}
	srv, err := mdns.NewServer(&mdns.Config{Zone: zone, Iface: &p.iface, Logger: quiet})
	if err != nil {
		return nil, err
	}
	return &station{server: srv, addresses: a.Addresses}, nil
}

func (s *station) close() {
	if s != nil && s.server != nil {
		_ = s.server.Shutdown()
	}
}
