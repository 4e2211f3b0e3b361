package e2e

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/novacron/novacron/api"
)

// agentAnswers looks at a guest through the agent in it, and at what its VM shows of
// what the agent said.
func (i *instance) agentAnswers(vm string, addresses ...string) {
	i.t.Helper()
	var g api.VMGuest
	i.eventually("the agent in "+vm, func() (bool, string) {
		g = get[api.VMGuest](i, "vm", "guest", vm)
		return g.Agent == "connected", "it is " + g.Agent
	})
	if out := i.must("vm", "exec", vm, "--", "qemu-ga", "--version"); g.Version == "" || !strings.Contains(out, g.Version) {
		i.t.Errorf("the agent in %s calls itself %q, and its program %q", vm, g.Version, out)
	}
	var v api.VM
	i.eventually("the addresses of "+vm, func() (bool, string) {
		v = get[api.VM](i, "vm", "show", vm)
		for _, a := range addresses {
			if !slices.Contains(v.Status.Addresses, a) {
				return false, fmt.Sprintf("they are %q", v.Status.Addresses)
			}
		}
		return true, ""
	})
	eth0 := slices.IndexFunc(g.Interfaces, func(n api.GuestInterface) bool { return n.Name == "eth0" })
	if eth0 < 0 || g.Interfaces[eth0].MAC != v.Spec.NICs[0].MAC {
		i.t.Errorf("%s has the interfaces %+v, and its VM %+v", vm, g.Interfaces, v.Spec.NICs)
	}
}

// root is the fill of the root file system, as 'vm df' shows it.
func (i *instance) root(vm string) api.GuestFileSystem {
	i.t.Helper()
	all := get[struct {
		Items []api.GuestFileSystem `json:"items"`
	}](i, "vm", "df", vm)
	at := slices.IndexFunc(all.Items, func(f api.GuestFileSystem) bool { return f.Path == "/" })
	if at < 0 {
		i.t.Fatalf("%s has the file systems %+v", vm, all.Items)
	}
	return all.Items[at]
}

// programsRun runs programs in a guest: what they read and write, and how they end,
// and one that fills the root file system.
func (i *instance) programsRun(vm, kernel string) {
	i.t.Helper()
	if out := i.must("vm", "exec", vm, "--", "/bin/uname", "-r"); out != kernel {
		i.t.Errorf("uname by the agent says %q, and by SSH %q", out, kernel)
	}
	if out, err := i.runIn(strings.NewReader("to count"), "vm", "exec", vm, "--stdin", "--", "wc", "-c"); err != nil || out != "8\n" {
		i.t.Errorf("wc says %q, %v", out, err)
	}
	i.fails(42, "no good", "vm", "exec", vm, "--", "sh", "-c", "echo no good >&2; exit 42")

	// what is left to root alone counts neither as used nor as room
	var block, blocks, free, room int64
	out := i.must("vm", "exec", vm, "--", "stat", "-f", "-c", "%S %b %f %a", "/")
	if _, err := fmt.Sscan(out, &block, &blocks, &free, &room); err != nil {
		i.t.Fatalf("stat says %q: %v", out, err)
	}
	before := i.root(vm)
	if want := api.Bytes(block * (blocks - free + room)); before.Type != "ext4" || before.TotalBytes != want {
		i.t.Errorf("the root of %s is %+v, want %d bytes", vm, before, want)
	}
	const written, about = 64 << 20, 60 << 20
	i.must("vm", "exec", vm, "--", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/var/tmp/filled && sync", written))
	if after := i.root(vm); after.UsedBytes-before.UsedBytes < about || after.UsedBytes > after.TotalBytes {
		i.t.Errorf("with 64 MiB more, the root of %s went from %+v to %+v", vm, before, after)
	}
}

// aWrite, once it is told to, writes to the disk and, later, to memory.
const aWrite = `echo READY; read go; (echo data >on-disk && echo ON-DISK) & sleep 2; echo data >/dev/shm/in-memory && echo IN-MEMORY; wait; echo ALL`

// freezeHolds freezes the file systems of a guest: its VM says so, a write to its disk
// waits, one to memory does not, and once they are thawed all is written.
func (i *instance) freezeHolds(vm, port string, key ssh.Signer) {
	i.t.Helper()
	c, err := dial(port, key)
	if err != nil {
		i.t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		i.t.Fatal(err)
	}
	out := &watcher{want: "ALL", found: make(chan struct{})}
	s.Stdout, s.Stderr = out, out
	in, err := s.StdinPipe()
	if err != nil {
		i.t.Fatal(err)
	}
	if err := s.Start(aWrite); err != nil {
		i.t.Fatal(err)
	}
	says := func(what string) {
		i.t.Helper()
		i.eventually("the guest says "+what, func() (bool, string) { return strings.Contains(out.text(), what), out.text() })
	}
	says("READY")
	if r := get[api.VMFreezeResult](i, "vm", "freeze", vm, "--for", "60s"); r.FileSystems < 1 {
		i.t.Errorf("freeze: %+v", r)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		i.t.Fatal(err)
	}
	says("IN-MEMORY")
	i.frozen(vm, true)
	if got := out.text(); strings.Contains(got, "ON-DISK") {
		i.t.Errorf("a frozen guest says %q", got)
	}
	i.must("vm", "thaw", vm)
	says("ALL")
	if got := out.text(); !strings.Contains(got, "ON-DISK") {
		i.t.Errorf("a thawed guest says %q", got)
	}
	i.frozen(vm, false)
}

// frozen waits until a VM says that its file systems are frozen, or that they are not.
func (i *instance) frozen(vm string, want bool) {
	i.t.Helper()
	i.eventually(fmt.Sprintf("VM %s frozen: %v", vm, want), func() (bool, string) {
		v := get[api.VM](i, "vm", "show", vm)
		return (v.Status.Frozen != nil) == want, fmt.Sprintf("it says %+v", v.Status.Frozen)
	})
}

// agentWorks is all that the agent in a full guest is asked for.
func (i *instance) agentWorks(vm, port string, key ssh.Signer) {
	i.t.Helper()
	i.agentAnswers(vm, "10.0.2.15", "10.0.2.77")
	kernel, ok := over(port, key, "uname -r")
	if !ok {
		i.t.Fatal(kernel)
	}
	i.programsRun(vm, kernel)
	i.freezeHolds(vm, port, key)
}
