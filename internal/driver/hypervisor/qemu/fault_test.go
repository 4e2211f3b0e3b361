package qemu_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func (h *harness) launch(t *testing.T, m contract.Machine) contract.Status {
	t.Helper()
	s, err := h.driver.Launch(hypertest.Context(t), m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h *harness) readLog(t *testing.T, m contract.Machine, want string) {
	t.Helper()
	r, err := h.driver.Log(hypertest.Context(t), m.VM, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	shell{t, struct {
		io.Reader
		io.Writer
	}{r, io.Discard}}.expect(want)
}

// adopt restarts the agent and gives what it finds of the one VM there is.
func (h *harness) adopt(t *testing.T, while func()) contract.Status {
	t.Helper()
	h.Away(t, while)
	found, err := h.driver.Adopt(hypertest.Context(t))
	if err != nil || len(found) != 1 {
		t.Fatalf("adopt found %+v, %v", found, err)
	}
	return found[0]
}

func (h *harness) record(vm contract.Machine, name string) string {
	return filepath.Join(h.opt.DataDir, "vms", vm.VM.String(), name)
}

// The keeper's death is not the guest's: it goes on, is adopted, can be killed and
// released; only how it ended by itself is not known.
func TestGuestOutlivesItsKeeper(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	before := h.launch(t, m)
	h.readLog(t, m, hypertest.Ready)
	signal(t, h.proc(t, m.VM).Keeper, unix.SIGKILL)
	if s, err := h.driver.Inspect(ctx, m.VM); err != nil || s.Phase != vm.PhaseRunning || s.PID != before.PID {
		t.Fatalf("without its keeper the guest is %+v, %v", s, err)
	}
	if s := h.adopt(t, nil); s.Phase != vm.PhaseRunning || s.PID != before.PID {
		t.Fatalf("adopted %+v", s)
	}
	if s, err := h.driver.Pause(ctx, m.Ref); err != nil || s.Phase != vm.PhasePaused {
		t.Fatalf("pause gave %+v, %v", s, err)
	}
	if _, err := h.driver.Console(ctx, m.Ref); !errs.Is(err, errs.HostFailure) {
		t.Fatalf("console gave %v", err)
	}
	h.CrashGuest(t, m.VM)
	s := rec.Await(t, m.VM, "the end", func(s contract.Status) bool { return !s.Phase.OnNode() })
	if s.Phase != vm.PhaseCrashed || s.Reason != "ended while nobody watched" {
		t.Fatalf("ended as %+v", s)
	}
}

// A process beside the hypervisor, whose keeper was killed while it started, waits for
// that keeper forever: it ends with the guest, and nothing is left.
func TestWhatAKeeperLeftBehindEnds(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	h.launch(t, m)
	left := exec.Command("sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	if !besideKeeper(t, left.Process.Pid, h.proc(t, m.VM).Keeper.PID) {
		t.Skip("this host has no cgroups to find a process by")
	}
	signal(t, h.proc(t, m.VM).Keeper, unix.SIGKILL)
	if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Release(ctx, m.VM); err != nil {
		t.Fatalf("release: %v: %v", err, errors.Unwrap(err))
	}
	_ = left.Wait() // killed: it ends by itself in ten minutes only
	if left.ProcessState.Success() {
		t.Error("what the keeper left ended by itself")
	}
}

// Who comes to the console while somebody leaves it waits for that, and is not refused.
func TestConsoleIsFreeOnceLeft(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	h.launch(t, m)
	has, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // whichever of the two is first
		left := has
		came := make(chan error)
		go func() {
			var err error
			has, err = h.driver.Console(ctx, m.Ref)
			came <- err
		}()
		_ = left.Close()
		if err := <-came; err != nil {
			t.Fatal(err)
		}
	}
	_ = has.Close()
}

// besideKeeper puts a process into the cgroups of a keeper, and tells whether it has any.
func besideKeeper(t *testing.T, pid, keeper int) (has bool) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", keeper))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		of := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if !strings.Contains(of[2], "/novacron-") {
			continue
		}
		mounts, _ := filepath.Glob("/sys/fs/cgroup/*" + of[2])
		for _, dir := range append(mounts, "/sys/fs/cgroup"+of[2]) {
			has = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) == nil || has
		}
	}
	return has
}

// A hypervisor that is stuck is shown as such and not touched; when it comes back
// it is well again; a kill works all the same.
func TestSilentHypervisorIsReportedNotTouched(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	before := h.launch(t, m)
	h.readLog(t, m, hypertest.Ready)
	hv := h.proc(t, m.VM).Hypervisor
	signal(t, hv, unix.SIGSTOP)
	const silent = "the hypervisor does not answer"
	if s, err := h.driver.Inspect(ctx, m.VM); err != nil || s.Phase != vm.PhaseRunning || s.Reason != silent {
		t.Fatalf("inspect says %+v, %v", s, err)
	}
	if s := h.adopt(t, nil); s.Phase != vm.PhaseRunning || s.Reason != silent || s.PID != before.PID {
		t.Fatalf("adopted %+v", s)
	}
	seen := len(rec.Of(m.VM)) // before the answer may come
	signal(t, hv, unix.SIGCONT)
	rec.Await(t, m.VM, "an answer", func(s contract.Status) bool {
		all := rec.Of(m.VM)
		return len(all) > seen && all[len(all)-1].Reason == "" && s.Phase == vm.PhaseRunning
	})
	signal(t, hv, unix.SIGSTOP)
	if s, err := h.driver.Kill(ctx, m.Ref); err != nil || s.Phase != vm.PhaseExited {
		t.Fatalf("kill gave %+v, %v", s, err)
	}
	if hv.Alive() {
		t.Fatal("the killed hypervisor lives")
	}
}

// A record that names a pid which somebody else has now reaches nobody.
func TestRecycledPidIsNeverSignalled(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m, other := h.Machine(t, hypertest.Polite), h.Machine(t, hypertest.Polite)
	h.launch(t, m)
	bystander := h.launch(t, other)
	p := h.proc(t, m.VM)
	innocent, err := process.Identify(bystander.PID)
	if err != nil {
		t.Fatal(err)
	}
	h.CrashGuest(t, m.VM)
	h.Away(t, func() {
		// As after a crash in which the end was not recorded, with the pid given away.
		for _, name := range []string{"end.json", keeper.ExitFile} {
			_ = os.Remove(h.record(m, name))
		}
		p.Hypervisor.PID, p.Keeper.PID = innocent.PID, innocent.PID
		writeJSON(t, h.record(m, keeper.ProcFile), p)
	})
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	s, err := h.driver.Inspect(ctx, m.VM)
	if err != nil || s.Phase != vm.PhaseCrashed || s.PID != 0 {
		t.Fatalf("a VM whose pid was given away is %+v, %v", s, err)
	}
	if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Release(ctx, m.VM); err != nil {
		t.Fatal(err)
	}
	if !innocent.Alive() {
		t.Fatal("a bystander was killed for its pid")
	}
}

func writeJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A socket that another machine answers is not this VM's.
func TestIdentityIsAskedForAtTheSocket(t *testing.T) {
	h := newHarness(t, nil)
	m, other := h.Machine(t, hypertest.Polite), h.Machine(t, hypertest.Polite)
	h.launch(t, m)
	h.launch(t, other)
	h.Away(t, func() {
		mine, theirs := h.socket(m.VM, "control"), h.socket(other.VM, "control")
		for _, move := range [][2]string{{mine, mine + "x"}, {theirs, mine}, {mine + "x", theirs}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
	})
	found, err := h.driver.Adopt(hypertest.Context(t))
	if err != nil || len(found) != 2 {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, s := range found {
		if s.Phase != vm.PhaseRunning || s.Reason == "" {
			t.Errorf("a VM behind whose socket another one answers is %+v, want running with a reason", s)
		}
		if _, err := h.driver.Pause(hypertest.Context(t), s.Ref); err == nil {
			t.Error("the other machine was paused")
		}
	}
}

// An agent whose record of a VM is damaged adopts it by its process.
func TestDamagedRecordIsAdoptedByProcess(t *testing.T) {
	h := newHarness(t, nil)
	m := h.Machine(t, hypertest.Polite)
	before := h.launch(t, m)
	s := h.adopt(t, func() {
		if err := os.WriteFile(h.record(m, "machine.json"), []byte(`{"machine": {"VM`), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if s.Ref != m.Ref || s.Phase != vm.PhaseRunning || s.PID != before.PID {
		t.Fatalf("adopted %+v, want %+v", s, before)
	}
}

// What was ended by a signal to QEMU itself, which then exits with code 0, was not
// the guest's own power-off.
func TestTerminatedHypervisorIsNoPowerOff(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	m := h.Machine(t, hypertest.Polite)
	h.launch(t, m)
	h.readLog(t, m, hypertest.Ready)
	signal(t, h.proc(t, m.VM).Hypervisor, unix.SIGTERM)
	s := rec.Await(t, m.VM, "the end", func(s contract.Status) bool { return !s.Phase.OnNode() })
	if s.Phase != vm.PhaseCrashed || !strings.Contains(s.Reason, "signal 15") {
		t.Fatalf("ended as %+v", s)
	}
}

// A guest that talks without end neither stalls nor fills the disk while nobody
// listens; and its log is there for who comes late.
func TestTalkativeGuestIsBounded(t *testing.T) {
	h := newHarness(t, nil)
	h.opt.LogBytes = 16 << 10
	h.Away(t, nil)
	sector := append([]byte(nil), benchSector...)
	sector[switchFlood] = 1
	m := h.machine(t, sector)
	h.launch(t, m)
	ctx := hypertest.Context(t)
	r, err := h.driver.Log(ctx, m.VM, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if n, err := io.CopyN(io.Discard, r, 256<<10); err != nil { // far more than is kept
		t.Fatalf("the guest stalled after %d bytes: %v", n, err)
	}
	entries, err := os.ReadDir(h.record(m, ""))
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), "serial.") {
			size += info.Size()
		}
	}
	if size == 0 || size > 2*h.opt.LogBytes {
		t.Fatalf("the log has %d bytes, want at most %d", size, 2*h.opt.LogBytes)
	}
}

func TestDiskInUseIsRefused(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	one, two := h.Machine(t, hypertest.Polite), h.Machine(t, hypertest.Polite)
	h.launch(t, one)
	two.Disks = one.Disks
	if _, err := h.driver.Launch(ctx, two); !errs.Is(err, errs.InUse) {
		t.Fatalf("a disk in use gave %v", err)
	}
	if _, err := h.driver.Inspect(ctx, two.VM); !errs.Is(err, errs.NotFound) {
		t.Fatalf("the refused launch left something: %v", err)
	}
	if s, err := h.driver.Inspect(ctx, one.VM); err != nil || s.Phase != vm.PhaseRunning || s.Reason != "" {
		t.Fatalf("the first guest is %+v, %v", s, err)
	}
	// Whoever comes from outside of our order meets QEMU's own lock.
	out, err := exec.CommandContext(ctx, "qemu-io", "-f", "raw", "-c", "write 0 512", one.Disks[0].File.Path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("a second opener of the image got %v: %s", err, out)
	}
}

func TestLaunchFailuresLeaveNothing(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	for name, c := range map[string]struct {
		spoil func(*contract.Machine)
		code  errs.Code
	}{
		"missing disk":      {func(m *contract.Machine) { m.Disks[0].File.Path += ".missing" }, errs.NotFound},
		"raw said qcow2":    {func(m *contract.Machine) { m.Disks[0].File.Format = "qcow2" }, errs.InvalidImage},
		"folder as kernel":  {func(m *contract.Machine) { m.Boot.Kernel = "/tmp" }, errs.InvalidField},
		"beyond all memory": {func(m *contract.Machine) { m.MemoryBytes = contract.MaxMemoryBytes }, errs.NoSpace},
	} {
		m := h.Machine(t, hypertest.Polite)
		c.spoil(&m)
		_, err := h.driver.Launch(ctx, m)
		if !errs.Is(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
		if err != nil && strings.Contains(errs.As(err).Message, h.dir) {
			t.Errorf("%s: the message shows a path of the host: %q", name, errs.As(err).Message)
		}
		if left := h.Leftovers(); len(left) > 0 {
			t.Fatalf("%s left:\n%s", name, strings.Join(left, "\n"))
		}
	}
}

func TestSecondDriverIsKeptOut(t *testing.T) {
	h := newHarness(t, nil)
	if _, err := qemu.New(h.opt); !errs.Is(err, errs.InUse) {
		t.Fatalf("a second driver got %v", err)
	}
}

func TestLongFoldersAreRefusedByName(t *testing.T) {
	h := newHarness(t, nil)
	opt := h.opt
	opt.DataDir = filepath.Join(h.dir, "other")
	opt.RunDir = filepath.Join(h.dir, strings.Repeat("long", 20))
	if _, err := qemu.New(opt); !errs.Is(err, errs.InvalidField) {
		t.Fatalf("got %v", err)
	}
}
