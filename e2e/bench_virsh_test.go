package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// byVirsh is libvirt with its defaults: two daemons on this host, each under a name of its
// own, that run guests for a user.
type byVirsh struct {
	f     *field
	guest *guest
	hosts []virtHost
	at    int
}

// virtHost is one of them.
type virtHost struct {
	dir, uri string
	// domain is the file of the guest's description there
	domain string
}

// nobody runs the daemons.
const nobody = 65534

// noVirsh says why libvirt can not be measured; nothing when it can.
func noVirsh() string {
	for _, program := range []string{"virsh", "libvirtd", "setpriv", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			return "libvirt is not installed"
		}
	}
	return ""
}

// openByVirsh starts a guest, and does not wait for it.
func openByVirsh(b *testing.B, f *field, memory int64, g *guest) *byVirsh {
	b.Helper()
	v := &byVirsh{f: f, guest: g}
	vm := id.New().String()
	for k := range 2 {
		tap := fmt.Sprintf("%s-virt%d", f.bridge[3:], k)
		f.addTap(tap, nobody)
		h := v.openHost(b, fmt.Sprintf("virt%d", k))
		domain := fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name><uuid>%s</uuid>
  <memory unit='b'>%d</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>%s</kernel><initrd>%s</initrd><cmdline>%s</cmdline></os>
  <features><acpi/></features>
  <devices>
    <interface type='ethernet'><mac address='%s'/><target dev='%s' managed='no'/><model type='virtio'/></interface>
  </devices>
</domain>
`, movedVM, vm, memory, f.kernel, f.initrd, g.cmdline, g.mac, tap)
		h.domain = filepath.Join(h.dir, "domain.xml")
		if err := os.WriteFile(h.domain, []byte(domain), 0o644); err != nil {
			b.Fatal(err)
		}
		v.hosts = append(v.hosts, h)
	}
	for _, h := range v.hosts {
		v.answers(b, h)
	}
	v.virsh(b, v.hosts[0], "create", v.hosts[0].domain)
	b.Cleanup(func() {
		for _, h := range v.hosts {
			_ = v.command(h, "destroy", movedVM).Run()
		}
	})
	return v
}

// openHost starts a daemon.
func (v *byVirsh) openHost(b *testing.B, name string) virtHost {
	b.Helper()
	h := virtHost{dir: filepath.Join(v.f.dir, name)}
	h.uri = "qemu+unix:///session?socket=" + filepath.Join(h.dir, "libvirt", "libvirt-sock")
	if err := os.MkdirAll(filepath.Join(h.dir, "libvirt"), 0o700); err != nil {
		b.Fatal(err)
	}
	conf := filepath.Join(h.dir, "libvirtd.conf")
	for file, content := range map[string]string{
		conf: fmt.Sprintf("host_uuid = %q\nlog_outputs = \"3:file:%s\"\n", id.New(), filepath.Join(h.dir, "log")),
		// without a further daemon for logs
		filepath.Join(h.dir, "libvirt", "qemu.conf"): "stdio_handler = \"file\"\n",
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	v.f.run("chown", "-R", fmt.Sprint(nobody), h.dir)
	// libvirt does not move a guest to a host of the same name; and the device of network
	// cards is for root alone on some hosts, so that these daemons see another one
	cmd := exec.Command("unshare", "--uts", "--mount", "--", "sh", "-c",
		`hostname "$1" && mount -t tmpfs none /dev/net && mknod -m 0666 /dev/net/tun c 10 200 && exec setpriv --reuid=65534 --regid=65534 --clear-groups libvirtd -f "$2"`, "sh", name, conf)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "XDG_RUNTIME_DIR=" + h.dir, "XDG_CONFIG_HOME=" + h.dir, "XDG_CACHE_HOME=" + h.dir, "XDG_DATA_HOME=" + h.dir,
	}
	cmd.Dir = h.dir
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if log, err := os.ReadFile(filepath.Join(h.dir, "log")); err == nil && b.Failed() {
			b.Logf("--- %s\n%s", name, log)
		}
	})
	return h
}

func (v *byVirsh) command(h virtHost, args ...string) *exec.Cmd {
	cmd := exec.Command("virsh", append([]string{"-c", h.uri}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+v.f.dir, "XDG_CACHE_HOME="+v.f.dir, "XDG_CONFIG_HOME="+v.f.dir)
	return cmd
}

func (v *byVirsh) virsh(b *testing.B, h virtHost, args ...string) {
	b.Helper()
	if out, err := v.command(h, args...).CombinedOutput(); err != nil {
		b.Fatalf("virsh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// answers waits until a daemon does.
func (v *byVirsh) answers(b *testing.B, h virtHost) {
	b.Helper()
	begin := clock.System{}.Boot()
	for {
		out, err := v.command(h, "list").CombinedOutput()
		if err == nil {
			return
		}
		if (clock.System{}).Boot()-begin > patience {
			b.Fatalf("libvirt does not answer: %v\n%s", err, out)
		}
	}
}

func (v *byVirsh) move(b *testing.B) moved {
	b.Helper()
	v.guest.goesOn(b, 3)
	from, to := v.hosts[v.at], v.hosts[1-v.at]
	v.guest.forget()
	begin := clock.System{}.Boot()
	// the description differs by the network card: the host is the same
	v.virsh(b, from, "migrate", "--live", movedVM, to.uri, "--migrateuri", "tcp://127.0.0.1", "--xml", to.domain)
	out := moved{whole: clock.System{}.Boot() - begin}
	v.at = 1 - v.at
	out.silence = v.guest.goesOn(b, 3)
	return out
}
