package chaos

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
)

// guestImage makes the image of a guest that runs the witness: the tiny guest's, with one
// more archive behind its initial file system, as the kernel takes it.
func guestImage(t testing.TB, dir string, n *network, l *listener) (kernel, initrd string) {
	t.Helper()
	program := filepath.Join(dir, "witness")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./witness")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the witness: %v\n%s", err, out)
	}
	code, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`#!/bin/sh
killall udhcpc 2>/dev/null
while [ ! -e /sys/class/net/eth0 ] || [ ! -b /dev/vda ]; do sleep 1; done
ip addr add %s/24 dev eth0 2>/dev/null
ip link set eth0 up
exec /bin/witness /dev/vda %s %s >/dev/console 2>&1
`, n.guest(), l.datagram, l.stream)
	inittab := "::sysinit:/etc/rc\n::respawn:/etc/witness\nttyS0::respawn:-/bin/sh\n::ctrlaltdel:/bin/poweroff\n::shutdown:/bin/sync\n"
	var more bytes.Buffer
	z := gzip.NewWriter(&more)
	archive(z, map[string][]byte{"etc/inittab": []byte(inittab), "etc/witness": []byte(script), "bin/witness": code})
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	kernel, base := hypertest.GuestImage(t)
	b, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	initrd = filepath.Join(dir, "initrd.gz")
	if err := os.WriteFile(initrd, append(b, more.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	return kernel, initrd
}

// archive writes programs into a cpio archive of the format "newc".
func archive(to interface{ Write([]byte) (int, error) }, files map[string][]byte) {
	ino := 0
	put := func(name string, mode int, content []byte) {
		ino++
		head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
		for _, part := range [][]byte{append([]byte(head+name), 0), content} {
			_, _ = to.Write(part)
			if over := len(part) % 4; over > 0 {
				_, _ = to.Write(make([]byte, 4-over))
			}
		}
	}
	for name, content := range files {
		put(name, 0o100755, content)
	}
	put("TRAILER!!!", 0, nil)
}
