package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	volumes "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/dir"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// linux is a machine that boots the test guest's kernel.
func (h *harness) linux(t *testing.T) contract.Machine {
	t.Helper()
	kernel, initrd := hypertest.GuestImage(t)
	m := contract.Machine{
		Ref:         contract.Ref{VM: id.New(), Epoch: 1},
		CPUs:        1,
		MemoryBytes: 128 * unit.MiB,
		Boot:        contract.Boot{Kernel: h.share(t, kernel), Initrd: h.share(t, initrd), Cmdline: "console=ttyS0 quiet"},
	}
	h.vms = append(h.vms, m.VM)
	return m
}

// share copies a file to where guests' users can read it.
func (h *harness) share(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(h.dir, filepath.Base(name))
	if err := os.WriteFile(out, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return out
}

// shell types into a guest's console and waits for what comes.
type shell struct {
	t *testing.T
	c io.ReadWriter
}

func (s shell) expect(want string) string {
	s.t.Helper()
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := s.c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			s.t.Fatalf("waited for %q, got %q and then %v", want, got.String(), err)
		}
	}
	return got.String()
}

// commands counts what run has run.
var commands atomic.Int64

// run runs a command whose output ends with a line of our own, which nothing before it
// can have written: not the guest's kernel, and not an earlier command.
func (s shell) run(command string) string {
	s.t.Helper()
	n := commands.Add(1)
	if _, err := fmt.Fprintf(s.c, "%s; echo do''ne-%d-\r", command, n); err != nil {
		s.t.Fatal(err)
	}
	return s.expect(fmt.Sprintf("done-%d-", n))
}

// growUnder makes the guest's disk larger while it looks.
func (h *harness) growUnder(ctx context.Context, t *testing.T, m contract.Machine, sh shell) {
	t.Helper()
	const size = 5*unit.GiB + 512
	if err := h.driver.GrowDisk(ctx, m.Ref, m.Disks[0].ID, size); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint("\n", size/512, "\r")
	// the guest hears of it by an interrupt
	for range 100 {
		if strings.Contains(sh.run("cat /sys/block/vda/size"), want) {
			sh.run("echo beyond | dd of=/dev/vda bs=512 seek=10000000 && sync")
			if got := sh.run("dd if=/dev/vda bs=512 skip=10000000 count=1 2>/dev/null | head -c 6"); !strings.Contains(got, "beyond") {
				t.Errorf("what was written beyond the old end reads as %q", got)
			}
			return
		}
	}
	t.Errorf("the guest never saw %d bytes", size)
}

// A guest sees the board and the processor that it was given, also when the host has
// newer ones.
func TestLinuxGuestSeesItsHardware(t *testing.T) {
	h := newHarness(t, func(contract.Status) {})
	ctx := hypertest.Context(t)
	about, err := h.driver.Describe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d boards, %d processors: %q %q", len(about.Machines), len(about.CPUs), about.Machines, about.CPUs)
	m := h.linux(t)
	m.Type, m.CPU = about.Machines[len(about.Machines)/2], vm.CPUBaseline2
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sh := shell{t, c}
	sh.expect("ready")
	if got := sh.run("cat /sys/class/dmi/id/product_version"); !strings.Contains(got, m.Type) {
		t.Errorf("the guest's board is %q, want %s", got, m.Type)
	}
	flags := sh.run("grep -m 1 ^flags /proc/cpuinfo")
	for _, want := range []string{"sse4_2", "popcnt", "cx16", "aes"} {
		if !strings.Contains(flags, " "+want+" ") {
			t.Errorf("the guest's processor lacks %s: %s", want, flags)
		}
	}
	for _, other := range []string{"avx", "avx2", "bmi1"} {
		if strings.Contains(flags, " "+other+" ") {
			t.Errorf("the guest's processor has %s: %s", other, flags)
		}
	}
}

// A guest tells how it uses its memory, without an agent, also to the next one who asks
// and after it has used more; one without a driver, or halted, keeps nobody waiting.
func TestLinuxGuestTellsItsMemory(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := h.linux(t)
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	sh := shell{t, c}
	sh.expect("NovaCron test guest ready")
	asked := func() *contract.GuestMemory {
		t.Helper()
		g, err := h.driver.Guest(ctx, m.Ref)
		if err != nil || g.Agent != contract.AgentAbsent {
			t.Fatalf("%+v %v", g, err)
		}
		return g.Memory
	}
	before := asked()
	if before == nil || before.TotalBytes < 64*unit.MiB || before.TotalBytes > m.MemoryBytes || before.FreeBytes <= 0 || before.AvailableBytes <= 0 || before.FreeBytes > before.TotalBytes {
		t.Fatalf("the guest tells %+v", before)
	}
	sh.run("mount -t tmpfs none /mnt 2>/dev/null || mkdir -p /mnt && mount -t tmpfs none /mnt; dd if=/dev/zero of=/mnt/x bs=1M count=24 2>/dev/null")
	for range 3 { // the statistics' clock has seconds
		after := asked()
		if after != nil && after.FreeBytes < before.FreeBytes-16*unit.MiB {
			break
		}
		if err := (clock.System{}).Sleep(ctx, time.Second); err != nil {
			t.Fatalf("24 MiB later the guest tells %+v, before %+v", after, before)
		}
	}
	if after := asked(); after == nil || after.FreeBytes > before.FreeBytes-16*unit.MiB {
		t.Errorf("24 MiB later the guest tells %+v, before %+v", after, before)
	}
	if _, err := h.driver.Pause(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	if got := asked(); got != nil {
		t.Errorf("a halted guest tells %+v", got)
	}
}

// A whole Linux guest: an overlay of ours as its disk, memory and CPUs as told, a
// forwarded port, and the power button.
func TestLinuxGuest(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	m := h.linux(t)
	m.CPUs = 2
	m.Disks = []contract.Disk{h.overlay(t, "a base image", filepath.Join(h.dir, "volumes"))}
	m.CDs = []contract.CD{{ID: id.New(), File: contract.File{Path: filepath.Join(h.dir, "cd.raw"), Format: "raw"}, Private: true}}
	if err := os.WriteFile(m.CDs[0].File.Path, append([]byte("what is on a CD"), make([]byte, 8192-15)...), 0o600); err != nil {
		t.Fatal(err)
	}
	port := h.FreePort(t)
	m.NICs = []contract.NIC{{ID: id.New(), MAC: "52:54:00:ab:cd:ef", Forwards: []contract.Forward{
		{Protocol: "tcp", HostPort: port, GuestPort: 80},
	}}}
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	sh := shell{t, c}
	sh.expect("NovaCron test guest ready")
	sh.expect("address: 10.0.2.15")
	got := sh.run("[ -b /dev/sr0 ] || sleep 3; [ -b /dev/sr0 ] || sleep 30; nproc; head -c 12 /dev/vda; head -c 15 /dev/sr0; cat /sys/block/sr0/ro /sys/block/vda/serial /sys/class/net/eth0/address /sys/class/dmi/id/product_uuid")
	for _, want := range []string{"\n2\r", "a base image", "what is on a CD1\r", "52:54:00:ab:cd:ef", m.VM.String()} {
		if !strings.Contains(got, want) {
			t.Errorf("the guest says %q, without %q", got, want)
		}
	}
	h.growUnder(ctx, t, m, sh)
	if page := fetch(ctx, t, port); !strings.Contains(page, "Hello from") {
		t.Errorf("the forwarded port gives %q", page)
	}
	h.networkComesBack(ctx, t, m, port)
	if err := h.driver.Shutdown(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	s := rec.Await(t, m.VM, "the end", func(s contract.Status) bool { return !s.Phase.OnNode() })
	if s.Phase != vm.PhaseExited || s.Reason != "guest shut down on request" {
		t.Fatalf("the guest ended as %+v", s)
	}
}

// networkComesBack kills the process that is the guest's user-mode network, twice:
// another takes its place, and the guest notices nothing but a pause.
func (h *harness) networkComesBack(ctx context.Context, t *testing.T, m contract.Machine, port int) {
	t.Helper()
	if os.Getuid() != 0 {
		return // QEMU is the network itself
	}
	ready := h.socket(m.VM, "net0") + ".ready"
	for range 2 {
		pid := findProcess(ready)
		if pid == 0 {
			t.Fatal("no process is the user-mode network")
		}
		if p := procStatus(t, pid); p["CapEff"] != "0000000000000000" || p["NoNewPrivs"] != "1" || p["Seccomp"] != "2" || strings.HasPrefix(p["Uid"], "0 ") {
			t.Errorf("the user-mode network runs as %v", p)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for {
			page, err := get(ctx, port)
			if err == nil && strings.Contains(page, "Hello from") && findProcess(ready) != pid {
				break
			}
			if (clock.System{}).Sleep(ctx, 20*time.Millisecond) != nil {
				t.Fatalf("the network does not come back: %q, %v", page, err)
			}
		}
	}
}

// findProcess gives the process that has a word on its command line, or 0.
func findProcess(word string) int {
	for _, p := range hypertest.Processes(word) {
		return p.PID
	}
	return 0
}

// overlay makes a volume above a raw base image.
func (h *harness) overlay(t *testing.T, text, folder string) contract.Disk {
	t.Helper()
	base := filepath.Join(h.dir, "base.raw")
	if err := os.WriteFile(base, append([]byte(text), make([]byte, unit.MiB-int64(len(text)))...), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	v, err := d.Create(t.Context(), volumes.Spec{ID: id.New(), SizeBytes: 64 * unit.MiB, Base: &volumes.Base{
		File: contract.File{Path: base, Format: "raw"}, VirtualSize: unit.MiB,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return contract.Disk{ID: v.ID, File: v.File, Backing: v.Backing}
}

func fetch(ctx context.Context, t *testing.T, port int) string {
	t.Helper()
	page, err := get(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func get(ctx context.Context, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// A guest whose disk has no room halts, says why, also to the next agent, and goes
// on where it was once there is room.
func TestFullDiskHaltsTheGuestUntilThereIsRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts a small file system: run it as root")
	}
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	small := filepath.Join(h.dir, "small")
	if err := os.Mkdir(small, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", small, "tmpfs", 0, "size=2m,mode=711"); err != nil {
		t.Fatal(err)
	}
	m := h.linux(t)
	t.Cleanup(func() { unmount(t, h, m.Ref, small) })
	m.Disks = []contract.Disk{h.overlay(t, "x", small)}
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	sh := shell{t, c}
	sh.expect("ready")
	if _, err := io.WriteString(c, "dd if=/dev/zero of=/dev/vda bs=64k seek=16 count=64 && sync && echo written''-all\r"); err != nil {
		t.Fatal(err)
	}
	const why = "no space left for disk vda"
	rec.Await(t, m.VM, "the halt", func(s contract.Status) bool { return s.Phase == vm.PhasePaused && s.Reason == why })
	_ = c.Close()
	h.Away(t, nil)
	found, err := h.driver.Adopt(ctx)
	if err != nil || len(found) != 1 || found[0].Phase != vm.PhasePaused || found[0].Reason != why {
		t.Fatalf("the next agent finds %+v, %v", found, err)
	}
	if err := unix.Mount("none", small, "", unix.MS_REMOUNT, "size=32m,mode=711"); err != nil {
		t.Fatal(err)
	}
	c, err = h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if s, err := h.driver.Resume(ctx, m.Ref); err != nil || s.Phase != vm.PhaseRunning || s.Reason != "" {
		t.Fatalf("resume gave %+v, %v", s, err)
	}
	shell{t, c}.expect("written-all")
}

// unmount ends the guest and takes the file system away, however the test ended.
func unmount(t *testing.T, h *harness, r contract.Ref, path string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := h.driver.Kill(ctx, r); err != nil {
		t.Error(err)
	}
	for {
		err := unix.Unmount(path, 0)
		if err == nil {
			return
		}
		// The volume driver's own cleanup may come after ours.
		if !errors.Is(err, unix.EBUSY) || unix.Unmount(path, unix.MNT_DETACH) == nil || clock.System.Sleep(clock.System{}, ctx, time.Millisecond) != nil {
			return
		}
	}
}
