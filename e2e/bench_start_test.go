package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
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

// installedQEMU is the file that the node's hypervisors are executed from, in their
// jails too; on a quiet machine nobody else executes it.
func installedQEMU(b *testing.B) string {
	b.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		b.Fatal(err)
	}
	return path
}

// What lies between the answer to a start and the execution of the hypervisor, over
// what a bare fork and exec of it takes, in turns.
func BenchmarkAcceptedToExec(b *testing.B) {
	program := installedQEMU(b)
	i := up(b, "--accel", "tcg")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--cpus", "1", "--memory", "128MiB", "--wait")
	c := i.client()
	seen := watchExecs(b, program)
	raw := func() time.Duration {
		seen.drain()
		begin := clock.System{}.Boot()
		cmd := exec.Command(program, "-version")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		took := seen.next(b) - begin
		_ = cmd.Wait()
		return took
	}
	start := func() time.Duration {
		seen.drain()
		a, err := c.VMs.Start(b.Context(), "web")
		if err != nil {
			b.Fatal(err)
		}
		begin := clock.System{}.Boot()
		took := seen.next(b) - begin
		done(b, c, a)
		i.must("vm", "stop", "web", "--force", "--wait")
		_ = clock.System{}.Sleep(b.Context(), 300*time.Millisecond) // a node has time between two starts
		return took
	}
	var ours, bare []time.Duration
	drift := steadily(b, func() {
		ours, bare = nil, nil
		for range 20 {
			ours = append(ours, start())
			bare = append(bare, raw(), raw())
			ours = append(ours, start())
		}
	})
	f := figure{
		Name: "start: accepted to exec", What: "from the answer 202 to the execution of QEMU, over a bare fork and exec of it", Unit: "ms",
		Ours: spreadOf(millis(ours)), Goal: "p50 under 10 ms over the floor", Drift: drift,
	}
	bareSpread := spreadOf(millis(bare))
	f.Floor, f.Value = &bareSpread, f.Ours.P50-bareSpread.P50
	f.Met = f.Value < 10
	record(b, f)
}

// done waits for a change's job, which must succeed.
func done(b *testing.B, c *client.Client, a client.Change) {
	b.Helper()
	if _, err := c.WaitChange(b.Context(), a, nil); err != nil {
		b.Fatal(err)
	}
}
