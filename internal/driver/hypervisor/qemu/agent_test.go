package qemu_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// archive is a cpio of the format that kernels unpack (newc).
type archive struct{ bytes.Buffer }

func (a *archive) add(name string, mode int, content []byte) {
	fmt.Fprintf(a, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(content)
	a.pad()
}

func (a *archive) pad() { a.Write(make([]byte, -a.Len()&3)) }

var library = regexp.MustCompile(`(/\S+) \(0x`)

// withAgent gives the initial file system of the test guest with Debian's
// qemu-guest-agent in it, its libraries, and the driver of its line.
func (h *harness) withAgent(t *testing.T, initrd string, more ...script) string {
	t.Helper()
	cache := filepath.Dir(filepath.Dir(initrd))
	agent := filepath.Join(cache, "guest-agent", "usr", "sbin", "qemu-ga")
	libraries, err := exec.CommandContext(t.Context(), "ldd", agent).Output()
	if err != nil || bytes.Contains(libraries, []byte("not found")) {
		t.Fatalf("there is no qemu-guest-agent to put into a guest, or not its libraries: run scripts/setup: %v\n%s", err, libraries)
	}
	files := map[string]string{"usr/sbin/qemu-ga": agent}
	for _, m := range library.FindAllStringSubmatch(string(libraries), -1) {
		files[strings.TrimPrefix(m[1], "/")] = m[1]
	}
	drivers, _ := filepath.Glob(filepath.Join(cache, "guest-kernel", "*", "modules", "*", "kernel", "drivers", "char", "virtio_console.ko*"))
	for _, d := range drivers {
		files[filepath.Base(d)] = d
	}
	var a archive
	made := map[string]bool{".": true}
	for name, from := range files {
		for _, dir := range parents(name) {
			if !made[dir] {
				a.add(dir, unix.S_IFDIR|0o755, nil)
				made[dir] = true
			}
		}
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		a.add(name, unix.S_IFREG|0o755, b)
	}
	// what an agent runs to shut its guest down
	a.add("sbin/shutdown", unix.S_IFREG|0o755, []byte("#!/bin/sh\nexec busybox poweroff -f\n"))
	for _, s := range more {
		a.add(s.name, unix.S_IFREG|0o755, []byte(s.text))
	}
	a.add("TRAILER!!!", 0, nil)
	base, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.Write(base)
	z := gzip.NewWriter(&out)
	if _, err := z.Write(a.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(h.dir, "initrd-with-agent")
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// script is a file of a guest, in the place of the one of its name.
type script struct{ name, text string }

// answering is a guest whose agent is started with it, and whose disk has a file system.
func (h *harness) answering(t *testing.T) contract.Machine {
	t.Helper()
	_, initrd := hypertest.GuestImage(t)
	m := h.linux(t)
	m.MemoryBytes = 192 << 20
	m.Disks = []contract.Disk{h.fileSystem(t)}
	m.Boot.Initrd = h.withAgent(t, initrd,
		script{"etc/inittab", "::sysinit:/etc/rc\nttyS0::respawn:-/bin/sh\n::respawn:/agent\n"},
		script{"agent", "#!/bin/sh\nls /dev/vport*p1 || insmod /virtio_console.ko\nmkdir -p /mnt /var/run\nmount -t ext4 /dev/vda /mnt\n" +
			"exec /usr/sbin/qemu-ga -m virtio-serial -p $(echo /dev/vport*p1) -t /run\n"})
	return m
}

// parents are the folders above a name, the highest first.
func parents(name string) (out []string) {
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		out = append([]string{dir}, out...)
	}
	return out
}

// A real agent in a real guest: absent, there, silent and there again; it tells
// addresses and file systems, runs programs, and shuts a guest down that ignores its
// power button; all of it also for an agent of the node that came later.
func TestGuestAgent(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	_, initrd := hypertest.GuestImage(t)
	m := h.linux(t)
	m.Boot.Initrd = h.withAgent(t, initrd)
	m.MemoryBytes = 192 << 20
	m.NICs = []contract.NIC{{ID: id.New(), MAC: "02:4e:43:00:00:07"}}
	m.Disks = []contract.Disk{h.fileSystem(t)}
	sh := h.shellOf(ctx, t, m)
	is := func() contract.Guest {
		g, err := h.driver.Guest(ctx, m.Ref)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := is(); g.Agent != contract.AgentAbsent {
		t.Errorf("before it was started: %+v", g)
	}
	if _, err := h.driver.Run(ctx, m.Ref, contract.Program{Path: "/bin/true", Time: time.Minute}); !errs.Is(err, errs.GuestAgent) {
		t.Errorf("without it: %v", err)
	}
	sh.run("ls /dev/vport*p1 || insmod /virtio_console.ko; mkdir -p /run /var/run; ip addr add 10.5.6.7/24 dev eth0; mount -t tmpfs none /www; killall acpid")
	sh.run("/usr/sbin/qemu-ga -d -m virtio-serial -p $(echo /dev/vport*p1) -t /run; true")
	until(ctx, t, "an agent that answers", func() bool { return is().Agent == contract.AgentConnected })
	g := is()
	var addresses []netip.Prefix
	for _, i := range g.Interfaces {
		addresses = append(addresses, i.Addresses...)
	}
	if !strings.HasPrefix(g.Version, "7.") || !strings.Contains(fmt.Sprint(addresses), "10.5.6.7/24") {
		t.Errorf("%+v", g)
	}
	h.runsPrograms(t, m)
	h.freezesAndThaws(t, m, sh)
	sh.run("kill -STOP $(pidof qemu-ga)")
	if g := is(); g.Agent != contract.AgentUnresponsive {
		t.Errorf("one that is halted: %+v", g)
	}
	sh.run("kill -CONT $(pidof qemu-ga)")
	until(ctx, t, "an agent that goes on", func() bool { return is().Agent == contract.AgentConnected })
	if _, err := h.driver.Freeze(ctx, m.Ref); err != nil {
		t.Error(err)
	}
	h.Away(t, nil)
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "what was left frozen", func() bool {
		g, err := h.driver.Glance(ctx, m.Ref)
		return err == nil && g.Frozen
	})
	if err := h.driver.Thaw(ctx, m.Ref); err != nil {
		t.Error(err)
	}
	h.runsPrograms(t, m)
	if err := h.driver.Shutdown(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	s := rec.Await(t, m.VM, "the end", func(s contract.Status) bool { return !s.Phase.OnNode() })
	if s.Phase != vm.PhaseExited {
		t.Errorf("a guest without a power button ended as %+v", s)
	}
}

// fileSystem makes a disk with a file system that can be frozen.
func (h *harness) fileSystem(t *testing.T) contract.Disk {
	t.Helper()
	d := contract.Disk{ID: id.New(), File: contract.File{Path: filepath.Join(h.dir, "ext4.raw"), Format: "raw"}}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", d.File.Path, "8M").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return d
}

// freezesAndThaws expects a guest's writes to wait while it is frozen.
func (h *harness) freezesAndThaws(t *testing.T, m contract.Machine, sh shell) {
	t.Helper()
	ctx := hypertest.Context(t)
	if _, err := h.driver.Freeze(ctx, m.Ref); !errs.Is(err, errs.GuestAgent) {
		t.Errorf("a guest with nothing to freeze: %v", err)
	}
	sh.run("mkdir -p /mnt; mount -t ext4 /dev/vda /mnt")
	if n, err := h.driver.Freeze(ctx, m.Ref); err != nil || n != 1 {
		t.Fatalf("%d file systems are frozen: %v", n, err)
	}
	sh.run("(echo written > /mnt/file; echo > /tmp-written) & true")
	if g, err := h.driver.Glance(ctx, m.Ref); err != nil || g.Agent != contract.AgentConnected || !g.Frozen || g.Told {
		t.Errorf("while it is frozen: %+v %v", g, err)
	}
	if got := sh.run("sleep 1; ls /tmp-written"); !strings.Contains(got, "No such file") {
		t.Errorf("it wrote while it was frozen: %s", got)
	}
	if _, err := h.driver.Freeze(ctx, m.Ref); !errs.Is(err, errs.InvalidState) {
		t.Errorf("twice: %v", err)
	}
	if _, err := h.driver.Run(ctx, m.Ref, contract.Program{Path: "/bin/true", Time: time.Minute}); !errs.Is(err, errs.GuestAgent) {
		t.Errorf("a program while it is frozen: %v", err)
	}
	for range 2 {
		if err := h.driver.Thaw(ctx, m.Ref); err != nil {
			t.Fatal(err)
		}
	}
	if g, err := h.driver.Glance(ctx, m.Ref); err != nil || g.Frozen || !g.Told || !strings.Contains(fmt.Sprint(g.Interfaces), "10.5.6.7") {
		t.Errorf("thawed: %+v %v", g, err)
	}
	until(ctx, t, "the write that waited", func() bool { return strings.Contains(sh.run("cat /mnt/file"), "written") })
}

func (h *harness) runsPrograms(t *testing.T, m contract.Machine) {
	t.Helper()
	run := func(limit time.Duration, input string, path string, args ...string) (contract.Outcome, error) {
		return h.driver.Run(hypertest.Context(t), m.Ref, contract.Program{Path: path, Args: args, Input: []byte(input), Time: limit})
	}
	out, err := run(time.Minute, "from outside", "/bin/sh", "-c", "cat; echo \"$1\" >&2; exit 7", "x", "a 'b' $HOME")
	if err != nil || out.Code != 7 || string(out.Output) != "from outside" || string(out.Errors) != "a 'b' $HOME\n" || out.Cut {
		t.Errorf("%+v %v", out, err)
	}
	out, err = run(time.Minute, "", "/bin/sh", "-c", "head -c 400000 /dev/zero; kill -9 $$")
	if err != nil || out.Code != 137 || out.Signal != 9 || len(out.Output) != contract.MaxOutput || !out.Cut {
		t.Errorf("code %d, signal %d, %d bytes, cut %v, %v", out.Code, out.Signal, len(out.Output), out.Cut, err)
	}
	if _, err := run(time.Minute, "", "/no/such/program"); !errs.Is(err, errs.GuestAgent) {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := run(time.Second, "", "/bin/sleep", "60"); !errs.Is(err, errs.Timeout) {
		t.Errorf("one that takes too long: %v", err)
	}
}

// A hypervisor in other hands puts a link to somebody's socket where its own was: it is
// not followed.
func TestLineIsNotLedElsewhere(t *testing.T) {
	h := newHarness(t, hypertest.NewRecorder().Sink)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	m.Screen = true
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	name := h.socket(m.VM, filepath.Join("inside", "vnc"))
	if c, err := h.driver.Display(ctx, m.Ref); err != nil {
		t.Fatal(err)
	} else {
		_ = c.Close()
	}
	if err := os.Rename(name, name+".true"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name+".true", name); err != nil {
		t.Fatal(err)
	}
	if c, err := h.driver.Display(ctx, m.Ref); err == nil {
		_ = c.Close()
		t.Error("a link was followed")
	}
}
