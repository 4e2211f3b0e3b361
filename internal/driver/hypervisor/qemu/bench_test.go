package qemu_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// BenchmarkLaunch compares, in one run and in turn, what a launch costs with its
// floor: a QEMU with the same machine, started by hand, until it executes the same
// guest.
func BenchmarkLaunch(b *testing.B) {
	h := newHarness(b, nil)
	if _, err := h.driver.Describe(b.Context()); err != nil {
		b.Fatal(err)
	}
	var ours, floor time.Duration
	took := func(f func()) time.Duration {
		begin := clock.System{}.Boot()
		f()
		return clock.System{}.Boot() - begin
	}
	rounds := 0
	for b.Loop() {
		rounds++
		m := h.machine(b, append([]byte(nil), benchSector...))
		floor += took(func() { b.Cleanup(byHand(b, h.dir, m)) })
		ours += took(func() {
			if _, err := h.driver.Launch(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		})
		if _, err := h.driver.Kill(b.Context(), m.Ref); err != nil {
			b.Fatal(err)
		}
		if err := h.driver.Release(b.Context(), m.VM); err != nil {
			b.Fatal(err)
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(rounds) }
	b.ReportMetric(ms(ours), "ms/launch")
	b.ReportMetric(ms(floor), "ms/floor")
	b.ReportMetric(ms(ours-floor), "ms/over")
}

// byHand starts QEMU and gives a function that ends it; it has ended when that
// was called once.
func byHand(b *testing.B, dir string, m contract.Machine) func() {
	b.Helper()
	path := filepath.Join(dir, "by-hand")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		b.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), qemuProgram(), "-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-machine", "q35,memory-backend=ram,usb=off,vmport=off", "-accel", "tcg,tb-size=256", "-cpu", "max",
		"-object", "memory-backend-file,id=ram,mem-path=/dev/shm/by-hand,size=16M,share=on",
		"-blockdev", `{"driver":"file","node-name":"f","filename":"`+m.Disks[0].File.Path+`"}`,
		"-blockdev", `{"driver":"raw","node-name":"d","file":"f"}`,
		"-device", "virtio-blk-pci,drive=d,bootindex=0", "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci",
		"-chardev", "socket,id=control,fd=3,server=on,wait=off", "-mon", "chardev=control,mode=control",
		"-chardev", "null,id=s", "-device", "isa-serial,chardev=s")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = f.Close()
	c, err := qmp.Dial(b.Context(), path, qmp.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Execute(b.Context(), "cont", nil, nil); err != nil {
		b.Fatal(err)
	}
	_ = c.Execute(b.Context(), "quit", nil, nil)
	_ = cmd.Wait()
	_ = l.Close()
	_ = os.Remove("/dev/shm/by-hand")
	return func() {}
}
