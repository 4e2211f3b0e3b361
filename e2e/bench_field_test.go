package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// field is where guests are moved: a bridge that all of them are joined to, wherever they
// run, and that they are heard on.
type field struct {
	b      *testing.B
	dir    string
	bridge string
	// net are the first three numbers of its addresses
	net            string
	kernel, initrd string
	guests         int
}

func openField(b *testing.B) *field {
	b.Helper()
	if err := tap.Usable(); err != nil || os.Getuid() != 0 {
		b.Skip("bridges take root: ", err)
	}
	u := id.New()
	short := id.Short(u)
	f := &field{b: b, dir: hypertest.ShortDir(b), bridge: "ncb" + short[len(short)-6:], net: fmt.Sprintf("10.%d.%d", 200+u[14]%50, u[15])}
	if err := os.Chmod(f.dir, 0o755); err != nil { // others run libvirt and go through it
		b.Fatal(err)
	}
	f.run("ip", "link", "add", f.bridge, "type", "bridge")
	b.Cleanup(func() { _ = exec.Command("ip", "link", "del", f.bridge).Run() })
	f.run("ip", "link", "set", f.bridge, "address", "02:00:00:00:00:01")
	f.run("ip", "addr", "add", f.net+".1/24", "dev", f.bridge)
	f.run("ip", "link", "set", f.bridge, "up")
	f.makeImage()
	return f
}

func (f *field) run(name string, args ...string) string {
	f.b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		f.b.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// addTap makes a network card of a guest that is run by hand, for a user.
func (f *field) addTap(name string, uid int) {
	f.b.Helper()
	f.run("ip", "tuntap", "add", "dev", name, "mode", "tap", "user", fmt.Sprint(uid))
	f.b.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	f.run("ip", "link", "set", name, "master", f.bridge, "up")
}

// startPulse is what its guests run, with what their kernel is told.
const startPulse = `#!/bin/sh
killall udhcpc 2>/dev/null
while [ ! -e /sys/class/net/eth0 ]; do sleep 1; done
set -- $(sed -n 's/.*pulse=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' ')
ip addr add $1/24 dev eth0 2>/dev/null
ip link set eth0 up
exec /bin/pulse $2 $3 $4 >/dev/console 2>&1
`

// makeImage makes the image of its guests: the tiny guest's, with one more archive behind
// its initial file system, as the kernel takes it.
func (f *field) makeImage() {
	f.b.Helper()
	root := filepath.Join(f.dir, "root")
	for _, dir := range []string{"etc", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			f.b.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "bin", "pulse"), "./pulse")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		f.b.Fatalf("build what the guests run: %v\n%s", err, out)
	}
	inittab := "::sysinit:/etc/rc\n::respawn:/etc/pulse\nttyS0::respawn:-/bin/sh\n::ctrlaltdel:/bin/poweroff\n"
	for name, content := range map[string]string{"etc/inittab": inittab, "etc/pulse": startPulse} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o755); err != nil {
			f.b.Fatal(err)
		}
	}
	kernel, base := hypertest.GuestImage(f.b)
	f.kernel, f.initrd = filepath.Join(f.dir, "vmlinuz"), filepath.Join(f.dir, "initrd.gz")
	f.run("cp", kernel, f.kernel)
	f.run("sh", "-c", `cp "$1" "$2" && truncate -s %4 "$2" && cd "$3" && find etc bin -type f | cpio --quiet -o -H newc | gzip -1 >>"$2"`, "sh", base, f.initrd, root)
	f.run("chmod", "0644", f.kernel, f.initrd)
}

// guest is one of the field, and how it is heard.
type guest struct {
	// cmdline is what its kernel is told
	cmdline string
	mac     string
	conn    *net.UDPConn
	changed chan struct{}

	mu   sync.Mutex
	name string
	last uint64
	at   time.Duration
	// longest silence since it was asked for
	longest time.Duration
	wrong   error
}

// newGuest is a guest that fills so much memory and counts so often. Its name is of the
// field, and says who runs it.
func (f *field) newGuest(every time.Duration, mib int) *guest {
	f.b.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(f.net + ".1")})
	if err != nil {
		f.b.Fatal(err)
	}
	f.b.Cleanup(func() { _ = conn.Close() })
	f.guests++
	g := &guest{
		conn: conn, changed: make(chan struct{}, 1), mac: fmt.Sprintf("52:54:00:00:00:%02x", f.guests),
		cmdline: fmt.Sprintf("console=ttyS0 panic=-1 quiet pulse=%s.%d,%s,%d,%d", f.net, 10+f.guests, conn.LocalAddr(), every.Milliseconds(), mib),
	}
	go g.listen()
	return g
}

func (g *guest) listen() {
	buf := make([]byte, 256)
	for {
		n, err := g.conn.Read(buf)
		if err != nil {
			return
		}
		g.hear(string(buf[:n]), clock.System{}.Boot())
	}
}

// hear judges a number: it is the same guest that counts, and it counts on.
func (g *guest) hear(line string, now time.Duration) {
	var name string
	var n uint64
	_, err := fmt.Sscanf(line, "%s %d", &name, &n)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil:
		g.wrong = fmt.Errorf("the guest said %q: %w", line, err)
	case g.name != "" && name != g.name:
		g.wrong = fmt.Errorf("guest %s became guest %s: it was started anew", g.name, name)
	case n <= g.last:
		g.wrong = fmt.Errorf("the guest said %d after %d: it runs twice, or from an older memory", n, g.last)
	}
	if g.at > 0 {
		g.longest = max(g.longest, now-g.at)
	}
	g.name, g.last, g.at = name, n, now
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// forget begins to look for the longest silence.
func (g *guest) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.longest = 0
}

// goesOn waits until a guest has counted so much further, and gives the longest silence.
func (g *guest) goesOn(b *testing.B, more uint64) time.Duration {
	b.Helper()
	late, free := clock.System{}.After(2 * patience)
	defer free()
	g.mu.Lock()
	want := g.last + more
	g.mu.Unlock()
	for {
		g.mu.Lock()
		last, longest, wrong := g.last, g.longest, g.wrong
		g.mu.Unlock()
		switch {
		case wrong != nil:
			b.Fatal(wrong)
		case last >= want:
			return longest
		}
		select {
		case <-g.changed:
		case <-late:
			b.Fatalf("the guest is silent: it said %d, and is to say %d", last, want)
		}
	}
}
