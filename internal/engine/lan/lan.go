package lan

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Announcement is what a server says of itself.
type Announcement struct {
	// Server tells servers of one cluster apart.
	Server string
	// Fingerprint is of the cluster's root certificate, SHA-256.
	Fingerprint [32]byte
	// Pin is of that certificate's public key, SHA-256: what a join token carries.
	Pin [32]byte
	// Addresses are host:port of the API, as other machines reach it.
	Addresses []string
	// Version is the server's.
	Version string
}

// service is our name in DNS-SD.
const service = "_novacron._tcp"

// Bounds of what is believed of a stranger.
const (
	maxAddresses = 8
	maxText      = 255 // of one TXT string (RFC 1035 section 3.3.14)
)

// text writes the announcement as the strings of a TXT record (RFC 6763 section 6).
func (a Announcement) text() []string {
	out := []string{"id=" + a.Server, "fp=" + hex.EncodeToString(a.Fingerprint[:]), "pin=" + hex.EncodeToString(a.Pin[:]), "v=" + a.Version}
	for i, addr := range a.Addresses {
		if i == maxAddresses {
			break
		}
		out = append(out, "a="+addr)
	}
	return slices.DeleteFunc(out, func(s string) bool { return len(s) > maxText })
}

// parse reads what text wrote, from anybody; false when it is not one of ours.
func parse(fields []string) (Announcement, bool) {
	var a Announcement
	known := 0
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		if len(f) > maxText || !printable(v) {
			continue
		}
		switch k {
		case "id":
			a.Server = v
		case "v":
			a.Version = v
		case "fp":
			known += digest(&a.Fingerprint, v)
		case "pin":
			known += digest(&a.Pin, v)
		case "a":
			if hostPort(v) && len(a.Addresses) < maxAddresses {
				a.Addresses = append(a.Addresses, v)
			}
		}
	}
	return a, known == 2 && len(a.Addresses) > 0
}

// digest reads a SHA-256, and counts it.
func digest(to *[32]byte, text string) int {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(to) {
		return 0
	}
	copy(to[:], b)
	return 1
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && n > 0 && host != ""
}

// reachable are the addresses that mean something to other machines on an interface
// with those IPs: not loopback, and for "every address" those of the interface.
func reachable(advertised []string, ips []netip.Addr) []string {
	var out []string
	for _, a := range advertised {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		ip, err := netip.ParseAddr(host)
		switch {
		case host == "localhost" || err == nil && ip.IsLoopback():
		case host == "" || err == nil && ip.IsUnspecified():
			for _, own := range ips {
				out = append(out, net.JoinHostPort(own.String(), port))
			}
		default:
			out = append(out, a)
		}
	}
	return out
}

// place is an interface that can be announced on.
type place struct {
	iface net.Interface
	ips   []netip.Addr
}

// places are the interfaces that are up, do multicast and have an address.
func places() []place {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []place
	for _, i := range all {
		const need = net.FlagUp | net.FlagMulticast
		if i.Flags&need != need || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		p := place{iface: i}
		for _, a := range addrs {
			// an address without its zone means nothing to others
			if n, err := netip.ParsePrefix(a.String()); err == nil && !n.Addr().IsLinkLocalUnicast() {
				p.ips = append(p.ips, n.Addr())
			}
		}
		if len(p.ips) > 0 {
			out = append(out, p)
		}
	}
	return out
}
