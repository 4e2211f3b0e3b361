package lan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/mdns"
)

func TestTextSurvives(t *testing.T) {
	a := Announcement{Server: "0190", Fingerprint: [32]byte{1, 2, 31: 9}, Pin: [32]byte{7}, Addresses: []string{"10.0.0.1:8443", "[fd00::1]:8443", "cloud.example:443"}, Version: "v1"}
	got, ok := parse(a.text())
	if diff := cmp.Diff(a, got); !ok || diff != "" {
		t.Errorf("ok %v (-want +got):\n%s", ok, diff)
	}
}

func TestStrangersAreNotBelieved(t *testing.T) {
	fp := "fp=" + strings.Repeat("ab", 32)
	pin := "pin=" + strings.Repeat("cd", 32)
	for name, fields := range map[string][]string{
		"nothing":                {},
		"no fingerprint":         {"a=10.0.0.1:1"},
		"a short fingerprint":    {"fp=abcd", "a=10.0.0.1:1"},
		"no address":             {fp},
		"no port":                {fp, "a=10.0.0.1"},
		"port 0":                 {fp, "a=10.0.0.1:0"},
		"a port that is none":    {fp, "a=10.0.0.1:99999"},
		"no host":                {fp, "a=:8443"},
		"control characters":     {fp, "a=10.0.0.1\x1b[2J:8443"},
		"more than a TXT string": {fp, "a=" + strings.Repeat("x", 300) + ":1"},
	} {
		if a, ok := parse(append(fields, pin)); ok {
			t.Errorf("%s is believed: %+v", name, a)
		}
	}
	many := []string{fp, pin, "v=\x1b]0;owned\x07"}
	for range 100 {
		many = append(many, "a=10.0.0.1:1")
	}
	a, ok := parse(many)
	if !ok || len(a.Addresses) != maxAddresses || a.Version != "" {
		t.Errorf("%v %d addresses, version %q", ok, len(a.Addresses), a.Version)
	}
}

func TestReachable(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("fd00::7")}
	for _, c := range []struct {
		advertised, want []string
	}{
		{[]string{"127.0.0.1:8443", "[::1]:8443", "localhost:8443"}, nil},
		{[]string{"0.0.0.0:8443"}, []string{"192.0.2.7:8443", "[fd00::7]:8443"}},
		{[]string{"[::]:1", "cloud.example:2"}, []string{"192.0.2.7:1", "[fd00::7]:1", "cloud.example:2"}},
		{[]string{"nonsense"}, nil},
	} {
		if diff := cmp.Diff(c.want, reachable(c.advertised, ips)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.advertised, diff)
		}
	}
}

// What one server says over several interfaces is one find; of another cluster, or
// of another server, it is another.
func TestCollect(t *testing.T) {
	one := Announcement{Server: "a", Fingerprint: [32]byte{1}, Addresses: []string{"10.0.0.1:1"}}
	again := one
	again.Addresses = []string{"10.0.0.1:1", "10.1.0.1:1"}
	other := Announcement{Server: "0", Fingerprint: [32]byte{2}, Addresses: []string{"10.0.0.2:1"}}
	heard := make(chan *mdns.ServiceEntry, 4)
	for _, a := range []Announcement{one, other, again} {
		heard <- &mdns.ServiceEntry{InfoFields: a.text()}
	}
	heard <- &mdns.ServiceEntry{InfoFields: []string{"printer=yes"}}
	close(heard)
	if diff := cmp.Diff([]Announcement{other, again}, collect(heard)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("fp=" + strings.Repeat("ab", 32) + "\npin=" + strings.Repeat("ab", 32) + "\na=10.0.0.1:8443\nid=x\nv=1")
	f.Add("a=:\nfp=\n=")
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := parse(strings.Split(text, "\n"))
		if !ok {
			return
		}
		again, ok := parse(a.text())
		if diff := cmp.Diff(a, again); !ok || diff != "" {
			t.Errorf("ok %v (-want +got):\n%s", ok, diff)
		}
	})
}
