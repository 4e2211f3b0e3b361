package e2e

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// execs tells when a program is executed: the kernel opens its file then.
type execs struct{ f *os.File }

func watchExecs(b *testing.B, program string) execs {
	b.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	b.Cleanup(func() { _ = f.Close() })
	if _, err := unix.InotifyAddWatch(fd, program, unix.IN_OPEN); err != nil {
		b.Fatal(err)
	}
	return execs{f}
}

// next gives the boot time at which the next execution was seen.
func (e execs) next(b *testing.B) time.Duration {
	b.Helper()
	_ = e.f.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	if _, err := e.f.Read(buf); err != nil {
		b.Fatalf("no execution was seen: %v", err)
	}
	return clock.System{}.Boot()
}

// drain forgets what was seen so far.
func (e execs) drain() {
	_ = e.f.SetReadDeadline(time.Now())
	_, _ = io.Copy(io.Discard, e.f)
}

// ownQEMU is a copy of the hypervisor that nobody else executes, first in PATH.
func ownQEMU(b *testing.B) string {
	b.Helper()
	installed, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		b.Fatal(err)
	}
	image, err := os.ReadFile(installed)
	if err != nil {
		b.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nce2e-qemu") //nolint:usetesting // a test's own folder is closed to the guest's user
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	// it finds modules and firmware beside itself
	bin := filepath.Join(dir, "bin")
	own := filepath.Join(bin, filepath.Base(installed))
	err = errors.Join(
		os.Chmod(dir, 0o755), os.Mkdir(bin, 0o755), os.WriteFile(own, image, 0o755),
		os.Symlink("/usr/lib", filepath.Join(dir, "lib")), os.Symlink("/usr/share", filepath.Join(dir, "share")))
	if err != nil {
		b.Fatal(err)
	}
	b.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return own
}

// BenchmarkAcceptedToExec measures what lies between the answer to a start and
// the execution of the hypervisor, over what a bare fork and exec of it takes; in
// turns, in one run.
func BenchmarkAcceptedToExec(b *testing.B) {
	own := ownQEMU(b)
	i := up(b, "--accel", "tcg")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--cpus", "1", "--memory", "64MiB", "--wait")
	c, err := client.New(client.Config{Socket: i.state().Summary.Socket})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	seen := watchExecs(b, own)
	var ours, floor []time.Duration
	for b.Loop() {
		seen.drain()
		begin := clock.System{}.Boot()
		raw := exec.Command(own, "-version")
		if err := raw.Start(); err != nil {
			b.Fatal(err)
		}
		floor = append(floor, seen.next(b)-begin)
		_ = raw.Wait()
		seen.drain()

		a, err := c.VMs.Start(b.Context(), "web")
		if err != nil {
			b.Fatal(err)
		}
		begin = clock.System{}.Boot()
		ours = append(ours, seen.next(b)-begin)
		done(b, c, a)
		i.must("vm", "stop", "web", "--force", "--wait")
		_ = clock.System{}.Sleep(b.Context(), 300*time.Millisecond) // a node has time between two starts
	}
	ms := func(d []time.Duration, q float64) float64 {
		slices.Sort(d)
		return float64(d[int(q*float64(len(d)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(ours, 0.5), "ms/p50")
	b.ReportMetric(ms(ours, 0.9), "ms/p90")
	b.ReportMetric(ms(floor, 0.5), "ms/floor-p50")
	b.ReportMetric(ms(ours, 0.5)-ms(floor, 0.5), "ms/p50-over")
}

// done waits for a change's job, which must succeed.
func done(b *testing.B, c *client.Client, a client.Change) {
	b.Helper()
	if _, err := c.WaitChange(b.Context(), a, nil); err != nil {
		b.Fatal(err)
	}
}
