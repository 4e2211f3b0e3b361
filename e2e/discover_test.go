package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/engine/pki"
)

// network is two hosts with one cable between them: network namespaces, each with
// addresses on its end of a veth.
type network struct {
	t     *testing.T
	hosts [2]string
}

func newNetwork(t *testing.T, first, second []string) *network {
	t.Helper()
	if !mayMakeLinks(t) {
		t.Skip("links between network namespaces need CAP_NET_ADMIN")
	}
	n := &network{t: t}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for k := range n.hosts {
		n.hosts[k] = fmt.Sprintf("nce2e-%d-%d", os.Getpid(), k)
		ip("netns", "add", n.hosts[k])
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", n.hosts[k]).Run() })
	}
	ip("-n", n.hosts[0], "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", n.hosts[1])
	for k, addrs := range [][]string{first, second} {
		for _, a := range addrs {
			ip("-n", n.hosts[k], "address", "add", a, "dev", "lan0")
		}
		ip("-n", n.hosts[k], "link", "set", "lo", "up")
		ip("-n", n.hosts[k], "link", "set", "lan0", "up")
	}
	return n
}

// on runs fn in the network of a host: what it starts lives there.
func (n *network) on(host int, fn func()) {
	n.t.Helper()
	done := make(chan error, 1)
	go func() {
		// the thread is not given back, so that nothing else ever runs on it
		runtime.LockOSThread()
		f, err := os.Open("/run/netns/" + n.hosts[host])
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			_ = f.Close()
		}
		if err == nil {
			fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatalf("enter the network of host %d: %v", host, err)
	}
}

// Servers are found on the local network: by people, by an agent whose token names
// none that is there, and by one whose servers have all moved.
func TestServersAreFoundNearby(t *testing.T) {
	n := newNetwork(t, []string{"10.231.7.1/24", "10.231.7.2/24"}, []string{"10.231.7.9/24"})
	var i *instance
	n.on(0, func() { i = up(t, "--nodes", "0", "--listen", "10.231.7.1:0", "--accel", "tcg") })
	fingerprint := i.state().Summary.Fingerprint

	type found struct {
		Addresses   []string `json:"addresses"`
		Fingerprint string   `json:"fingerprint"`
	}
	discover := func(host int) (all []found) {
		n.on(host, func() {
			all = get[struct {
				Items []found `json:"items"`
			}](i, "discover", "--wait", "1s").Items
		})
		return all
	}
	var seen []found
	i.eventually("the server is found", func() (bool, string) {
		seen = discover(1)
		return len(seen) == 1, fmt.Sprint(seen)
	})
	if seen[0].Fingerprint != fingerprint || !slices.Equal(seen[0].Addresses, []string{i.state().Summary.Address}) {
		t.Errorf("found %v, want %s at %s", seen, fingerprint, i.state().Summary.Address)
	}

	token, err := pki.ParseJoinToken(strings.TrimSpace(get[api.Token](i, "node", "token").Token))
	if err != nil {
		t.Fatal(err)
	}
	token.Servers = []string{"10.231.7.77:1"} // nobody
	stop := i.agentOn(n, 1, token.String())
	defer stop()
	reports := func(what string) {
		i.eventually(what, func() (bool, string) {
			nodes := get[api.List[api.Node]](i, "node", "list").Items
			return len(nodes) == 1 && nodes[0].Status.State == "ready", fmt.Sprintf("%+v", nodes)
		})
	}
	reports("the node has joined")

	i.must("down")
	i.args = append(i.args, "--listen", "10.231.7.2:0")
	n.on(0, i.start)
	reports("the node found the server that has moved")
}

// agentOn starts an agent on another host, and gives what stops it.
func (i *instance) agentOn(n *network, host int, token string) func() {
	i.t.Helper()
	dir, err := os.MkdirTemp("", "nce2e-agent")
	if err != nil {
		i.t.Fatal(err)
	}
	log, err := os.Create(i.data + "/logs/far-agent.log")
	if err != nil {
		i.t.Fatal(err)
	}
	cmd := exec.Command(binary, "agent", "--data-dir", dir, "--run-dir", dir+"/run", "--name", "far", "--join", "-", "--accel", "tcg")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(token+"\n"), log, log
	cmd.Env = append(os.Environ(), "HOME="+dir)
	n.on(host, func() { err = cmd.Start() })
	if err != nil {
		i.t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = log.Close()
		_ = os.RemoveAll(dir)
	}
}

// mayMakeLinks tells whether this process may configure networks (CAP_NET_ADMIN, bit
// 12 of capabilities(7)): root may, except in some containers.
func mayMakeLinks(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return caps&(1<<12) != 0
		}
	}
	return false
}
