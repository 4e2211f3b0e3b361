package qemu_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ip runs ip(8).
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// newBridge makes a bridge that leads nowhere.
func newBridge(t *testing.T) string {
	t.Helper()
	if err := tap.Usable(); err != nil {
		t.Skip("a bridge takes root and nft: ", err)
	}
	name := "nvb" + id.Short(id.New())
	ip(t, "link", "add", name, "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	ip(t, "link", "set", name, "up")
	return name
}

// onBridge makes a harness with a bridge that its guests may join.
func onBridge(t *testing.T) (*harness, string) {
	t.Helper()
	bridge := newBridge(t)
	return newHarness(t, hypertest.NewRecorder().Sink, bridge), bridge
}

func (h *harness) bridged(t *testing.T, bridge, mac string) contract.Machine {
	m := h.linux(t)
	m.NICs = []contract.NIC{{ID: id.New(), MAC: mac, Bridge: bridge}}
	return m
}

// shellOf launches a guest and gives its shell.
func (h *harness) shellOf(ctx context.Context, t *testing.T, m contract.Machine) shell {
	t.Helper()
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	sh := shell{t, c}
	sh.expect("NovaCron test guest ready")
	sh.run("killall udhcpc")
	return sh
}

var packets = regexp.MustCompile(`counter packets (\d+) bytes \d+ drop\n\t}`)

// spoofed is how many frames of the first guest's last rule were dropped, of all chains.
func (h *harness) spoofed(t *testing.T) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", "list", "table", "netdev", tap.Table(h.opt.NodeShort)).Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, m := range packets.FindAllStringSubmatch(string(out), -1) {
		n, _ := strconv.Atoi(m[1])
		sum += n
	}
	return sum
}

const (
	macOne = "02:4e:43:00:00:01"
	macTwo = "02:4e:43:00:00:02"
)

// Two guests on one bridge reach each other; one that takes another address is not
// heard, and is again when it takes its own; also after its agent was changed, and
// after somebody has emptied the host's firewall. Nothing is left.
func TestGuestsOnABridge(t *testing.T) {
	h, bridge := onBridge(t)
	ctx := hypertest.Context(t)
	one, two := h.bridged(t, bridge, macOne), h.bridged(t, bridge, macTwo)
	a, b := h.shellOf(ctx, t, one), h.shellOf(ctx, t, two)
	a.run("ip addr add 10.77.0.1/24 dev eth0")
	b.run("ip addr add 10.77.0.2/24 dev eth0")
	ping := func() string { return a.run("ping -c 2 -i 0.2 -W 1 10.77.0.2 | grep transmitted") }
	if got := ping(); !strings.Contains(got, "2 packets received") {
		t.Fatalf("between two guests: %q", got)
	}
	taken := func(mac string) {
		a.run("ip link set eth0 down; ip link set eth0 address " + mac + "; ip link set eth0 up; ip addr replace 10.77.0.1/24 dev eth0")
	}
	before := h.spoofed(t)
	taken("02:4e:43:00:00:99")
	if got := ping(); !strings.Contains(got, "0 packets received") {
		t.Errorf("from an address that is not its own: %q", got)
	}
	if after := h.spoofed(t); after <= before {
		t.Errorf("%d frames were dropped, %d before", after, before)
	}
	// its firewall is emptied, and its agent is changed
	h.Away(t, func() {
		if out, err := exec.CommandContext(ctx, "nft", "delete", "table", "netdev", tap.Table(h.opt.NodeShort)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	for i, m := range []contract.Machine{one, two} {
		c, err := h.driver.Console(ctx, m.Ref)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		*[]*shell{&a, &b}[i] = shell{t, c}
	}
	if got := ping(); !strings.Contains(got, "0 packets received") {
		t.Errorf("after its filter was made anew, from an address that is not its own: %q", got)
	}
	taken(macOne)
	if got := ping(); !strings.Contains(got, "2 packets received") {
		t.Errorf("from its own address again: %q", got)
	}
	for _, m := range []contract.Machine{one, two} {
		if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
			t.Fatal(err)
		}
		if err := h.driver.Release(ctx, m.VM); err != nil {
			t.Fatal(err)
		}
	}
	if left := hypertest.Taps(h.opt.NodeShort); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A guest is not started without its filter, onto a bridge that it may not join, or
// that is not there; and nothing is left of it.
func TestGuestIsNotStartedOpen(t *testing.T) {
	h, bridge := onBridge(t)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	m.NICs = []contract.NIC{{ID: id.New(), MAC: macOne, Bridge: "lo"}}
	if _, err := h.driver.Launch(ctx, m); !errs.Is(err, errs.Unsupported) {
		t.Errorf("onto a device that is no bridge: %v", err)
	}
	h.Away(t, func() { h.opt.Bridges = []string{"nvnone", "lo"} })
	if got := h.driver.Capabilities().Bridges; len(got) != 0 {
		t.Errorf("guests may join %q", got)
	}
	for name, code := range map[string]errs.Code{bridge: errs.Unsupported, "nvnone": errs.NotFound, "lo": errs.NotFound} {
		m.NICs[0].Bridge = name
		if _, err := h.driver.Launch(ctx, m); !errs.Is(err, code) {
			t.Errorf("onto %s: %v", name, err)
		}
	}
	// nft that fails: before the real one in PATH
	h.Away(t, func() { h.opt.Bridges = []string{bridge} })
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte("#!/bin/sh\necho no room >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", dir+":"+path)
	m.NICs[0].Bridge = bridge
	if s, err := h.driver.Launch(ctx, m); err == nil {
		t.Errorf("without a filter: %+v", s)
	}
	t.Setenv("PATH", path)
	if left := append(hypertest.Taps(h.opt.NodeShort), h.processes()...); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	_ = h.driver.Release(ctx, m.VM)
	s, err := h.driver.Launch(ctx, m)
	if err != nil || s.Phase != vm.PhaseRunning {
		t.Errorf("with its filter: %+v %v", s, err)
	}
}

// A tap goes with its guest, whoever ends it and whether an agent is there or not; what
// is left of its filter goes with the next agent.
func TestTapGoesWithItsGuest(t *testing.T) {
	h, bridge := onBridge(t)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	m.NICs = []contract.NIC{{ID: id.New(), MAC: macOne, Bridge: bridge}, {ID: id.New(), MAC: "02:4e:43:00:00:05"}, {ID: id.New(), MAC: macTwo, Bridge: bridge}}
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	if got := hypertest.Taps(h.opt.NodeShort); len(got) != 3 { // two taps, one table
		t.Errorf("%q", got)
	}
	h.Away(t, func() {
		h.CrashGuest(t, m.VM)
		until(ctx, t, "taps that are gone", func() bool {
			taps, _ := filepath.Glob("/sys/class/net/nv" + h.opt.NodeShort + "*")
			return len(taps) == 0
		})
	})
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Release(ctx, m.VM); err != nil {
		t.Fatal(err)
	}
	if left := hypertest.Taps(h.opt.NodeShort); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// ticking is a clock whose sleeps of five seconds, which is how often filters are looked
// after, end when a test says so.
type ticking struct {
	clock.System
	tick chan struct{}
}

// Sleep implements clock.Clock.
func (c ticking) Sleep(ctx context.Context, d time.Duration) error {
	if d != 5*time.Second {
		return c.System.Sleep(ctx, d)
	}
	select {
	case <-c.tick:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// looked lets the five seconds pass, and returns once the look after them is over: the
// next one is waited for only then.
func (c ticking) looked() {
	c.tick <- struct{}{}
	c.tick <- struct{}{}
}

// A filter that somebody takes away while the guest runs is there again after the next
// look; where it cannot be made, the guest is off the network.
func TestFiltersAreLookedAfter(t *testing.T) {
	h, bridge := onBridge(t)
	ctx := hypertest.Context(t)
	c := ticking{tick: make(chan struct{})}
	h.Away(t, func() { h.opt.Clock = c })
	m := h.Machine(t, hypertest.Polite)
	m.NICs = []contract.NIC{{ID: id.New(), MAC: macOne, Bridge: bridge}}
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Fatal(err)
	}
	filter := func() string {
		out, _ := exec.CommandContext(ctx, nft, "list", "table", "netdev", tap.Table(h.opt.NodeShort)).CombinedOutput()
		return string(out)
	}
	reload := func() {
		t.Helper()
		if out, err := exec.CommandContext(ctx, nft, "delete", "table", "netdev", tap.Table(h.opt.NodeShort)).CombinedOutput(); err != nil || strings.Contains(filter(), macOne) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	reload()
	c.looked()
	if got := filter(); !strings.Contains(got, macOne) {
		t.Errorf("five seconds later: %s", got)
	}
	taps := hypertest.Taps(h.opt.NodeShort)
	if len(taps) == 0 || h.tapsDown(t, bridge) != 0 {
		t.Fatalf("taps %q, %d of them down", taps, h.tapsDown(t, bridge))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte("#!/bin/sh\necho no room >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	reload()
	c.looked()
	if got := filter(); strings.Contains(got, macOne) || h.tapsDown(t, bridge) != 1 {
		t.Errorf("without a filter it is still on the network: %s", got)
	}
}

// tapsDown counts interfaces of a bridge that are switched off; one that has left it is.
func (h *harness) tapsDown(t *testing.T, bridge string) int {
	t.Helper()
	on, err := filepath.Glob("/sys/class/net/" + bridge + "/brif/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range on {
		flags, err := os.ReadFile("/sys/class/net/" + filepath.Base(f) + "/flags")
		if n, _ := strconv.ParseInt(strings.TrimSpace(string(flags)), 0, 64); err == nil && n&1 == 1 {
			return 0
		}
	}
	return 1
}

// A bridge keeps the address that it has from a network card, whatever guests join it: the
// addresses of their taps are above all of those.
func TestBridgeKeepsItsAddress(t *testing.T) {
	h, bridge := onBridge(t)
	card := "nvc" + id.Short(id.New())
	ip(t, "link", "add", card, "address", "f8:ff:ff:ff:ff:01", "type", "veth", "peer", "name", card+"p")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", card).Run() })
	ip(t, "link", "set", card, "master", bridge)
	addressOf := func() string {
		b, err := os.ReadFile("/sys/class/net/" + bridge + "/address")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if got := addressOf(); got != "f8:ff:ff:ff:ff:01" {
		t.Fatalf("the bridge has %s", got)
	}
	for n := range 3 {
		h.launch(t, h.bridged(t, bridge, fmt.Sprintf("02:6e:76:00:00:%02x", n)))
		if got := addressOf(); got != "f8:ff:ff:ff:ff:01" {
			t.Fatalf("with %d guests the bridge has %s", n+1, got)
		}
	}
}
