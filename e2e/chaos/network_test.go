package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/id"
)

// network is one of the bench's: a namespace for each node, a bridge that joins them with
// the servers, and one that joins the networks of their guests.
type network struct {
	t testing.TB
	// name is a part of all names
	name string
	// net and tenants are the first three numbers of the two networks' addresses
	net, tenants string
}

// guestBridge is its name in each node.
const guestBridge = "guests"

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func openNetwork(t testing.TB, nodes int) *network {
	t.Helper()
	u := id.New()
	short := id.Short(u)
	n := &network{t: t, name: short[len(short)-6:], net: fmt.Sprintf("10.%d.%d", 200+u[14]%50, u[15]&^1), tenants: fmt.Sprintf("10.%d.%d", 200+u[14]%50, u[15]|1)}
	for _, b := range []struct{ name, address string }{{n.plane(), n.servers()}, {n.guests(), n.listener()}} {
		run(t, "ip", "link", "add", b.name, "type", "bridge")
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", b.name).Run() })
		run(t, "ip", "link", "set", b.name, "address", "02:00:00:00:00:01")
		run(t, "ip", "addr", "add", b.address+"/24", "dev", b.name)
		run(t, "ip", "link", "set", b.name, "up")
	}
	for k := range nodes {
		n.addNode(k)
	}
	return n
}

func (n *network) plane() string           { return "ncp" + n.name }
func (n *network) guests() string          { return "ncg" + n.name }
func (n *network) servers() string         { return n.net + ".1" }
func (n *network) listener() string        { return n.tenants + ".1" }
func (n *network) guest() string           { return n.tenants + ".9" }
func (n *network) address(node int) string { return fmt.Sprintf("%s.%d", n.net, 11+node) }
func (n *network) space(node int) string   { return fmt.Sprintf("nc%s-%d", n.name, node+1) }

func (n *network) addNode(k int) {
	n.t.Helper()
	ns := n.space(k)
	run(n.t, "ip", "netns", "add", ns)
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	for dev, bridge := range map[string]string{"plane0": n.plane(), "tenants0": n.guests()} {
		outside := fmt.Sprintf("nc%s%s%d", dev[:1], n.name, k)
		run(n.t, "ip", "link", "add", outside, "type", "veth", "peer", "name", dev, "netns", ns)
		run(n.t, "ip", "link", "set", outside, "master", bridge, "up")
		run(n.t, "ip", "-n", ns, "link", "set", dev, "up")
	}
	run(n.t, "ip", "-n", ns, "link", "set", "lo", "up")
	run(n.t, "ip", "-n", ns, "addr", "add", n.address(k)+"/24", "dev", "plane0")
	run(n.t, "ip", "-n", ns, "link", "add", guestBridge, "type", "bridge")
	run(n.t, "ip", "-n", ns, "link", "set", guestBridge, "address", fmt.Sprintf("02:00:00:00:01:%02x", k))
	run(n.t, "ip", "-n", ns, "link", "set", "tenants0", "master", guestBridge)
	run(n.t, "ip", "-n", ns, "link", "set", guestBridge, "up")
	run(n.t, "ip", "netns", "exec", ns, "nft", "add table inet chaos; add chain inet chaos in { type filter hook input priority 0; }")
}

// cut has a node hear nothing any more of some addresses.
func (n *network) cut(node int, from ...string) {
	rule := fmt.Sprintf("add rule inet chaos in ip saddr { %s } drop", strings.Join(from, ", "))
	run(n.t, "ip", "netns", "exec", n.space(node), "nft", rule)
}

// mend has a node hear all again.
func (n *network) mend(node int) {
	run(n.t, "ip", "netns", "exec", n.space(node), "nft", "flush chain inet chaos in")
}

// within runs fn in the network of a node: what it starts lives there.
func (n *network) within(node int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// the thread is not given back, so that nothing else ever runs on it
		runtime.LockOSThread()
		f, err := os.Open(filepath.Join("/run/netns", n.space(node)))
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			_ = f.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}
