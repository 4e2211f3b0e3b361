// Package remote reads files from URLs that strangers name, without being led where
// they may not go.
//
// A URL is http or https, without credentials. What decides is the address that is
// dialled, when it is dialled: a name that leads elsewhere than it did a moment ago
// is caught, and so is each redirect. Addresses of this machine, of private and
// shared networks, link-local, multicast, reserved ones, and IPv6 forms that carry
// such an IPv4 address are refused with errs.URLForbidden, unless an operator named
// their network. Proxies of the environment are not used: they would dial instead.
//
// A body has the length that was announced, at most; one without a length is not
// read. It goes on from a byte when the other side says, by a validator, that it is
// still the same file. Nothing is kept here.
package remote

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// forbidden are the networks of the registries of special-purpose addresses (RFC
// 6890 and what followed) that are not for everybody.
var forbidden = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

var (
	// global is all that is given out of IPv6.
	global = netip.MustParsePrefix("2000::/3")
	// nat64 carries an IPv4 address in its last four bytes.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// Guard decides where one may be led. Its networks are allowed whatever they are.
type Guard struct{ Networks []netip.Prefix }

// Address decides about an address that is about to be dialled.
func (g Guard) Address(a netip.Addr) error {
	a = a.Unmap()
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	switch {
	case a.Zone() != "":
		return forbid("the address %s is of one link alone", a)
	case slices.ContainsFunc(g.Networks, in):
		return nil
	case nat64.Contains(a):
		b := a.As16()
		return g.Address(netip.AddrFrom4([4]byte(b[12:])))
	case slices.ContainsFunc(forbidden, in), a.Is6() && !global.Contains(a):
		return forbid("the address %s is not one of the internet's: an operator can allow its network", a)
	default:
		return nil
	}
}

// maxURL bounds a URL, in bytes.
const maxURL = 2048

// URL decides about a URL before anything is dialled.
func (g Guard) URL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxURL || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, forbid("this is no URL, or one of more than %d bytes", maxURL)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, forbid("a file is read over http or https, not over '%s'", errs.Clip(u.Scheme))
	case u.Hostname() == "":
		return nil, forbid("the URL names no host")
	case u.User != nil:
		return nil, forbid("the URL has a name and a password in it: a file is read without")
	}
	u.Fragment = ""
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return u, g.Address(a)
	}
	return u, nil
}

func forbid(format string, args ...any) error {
	return errs.New(errs.URLForbidden, format, args...)
}
