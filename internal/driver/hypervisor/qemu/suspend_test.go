package qemu_test

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// witnessSector is guestcode/witness.s: a guest that knows its memory.
//
//go:embed guestcode/witness.bin
var witnessSector []byte

// witness makes a guest that knows its memory, and a file for that.
func (h *harness) witness(t *testing.T) (contract.Machine, string) {
	t.Helper()
	m := h.machine(t, witnessSector)
	m.MemoryBytes = 64 * unit.MiB
	return m, filepath.Join(hypertest.ShortDir(t), "memory")
}

// counts types a byte and expects the guest to know its memory and how far it had
// counted.
func (h *harness) counts(t *testing.T, m contract.Machine, n int) {
	t.Helper()
	c, err := h.driver.Console(hypertest.Context(t), m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "a"); err != nil {
		t.Fatal(err)
	}
	shell{t, c}.expect(fmt.Sprintf("k%d", n))
}

func (h *harness) suspend(t *testing.T, m contract.Machine, file string) {
	t.Helper()
	s, err := h.driver.Suspend(hypertest.Context(t), m.Ref, file)
	if err != nil || s.Phase != vm.PhaseSuspended {
		t.Fatalf("%+v %v", s, err)
	}
}

// next is the machine that goes on from a file.
func next(m contract.Machine, file string) contract.Machine {
	m.Epoch++
	m.Incoming = file
	return m
}

// A guest's memory is the same byte for byte after it was suspended, again and
// again, over a restart of the agent and a reboot of the host; what it used on the
// host is given back meanwhile, and the file is readable for nobody else.
func TestMemoryOutlivesSuspend(t *testing.T) {
	h := newHarness(t, nil)
	m, file := h.witness(t)
	h.launch(t, m)
	h.readLog(t, m, "guest ready")
	for n := 1; n <= 3; n++ {
		h.counts(t, m, n)
		h.suspend(t, m, file)
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() < unit.MiB/2 {
			t.Fatalf("%v %v", info, err)
		}
		if s := h.adopt(t, func() {
			if left := h.processes(); len(left) != 0 {
				t.Errorf("while it is suspended: %v", left)
			}
			if n == 2 { // a reboot of the host
				_ = os.RemoveAll(h.opt.RAMDir)
				_ = os.RemoveAll(h.opt.RunDir)
			}
		}); s.Phase != vm.PhaseSuspended {
			t.Errorf("the next agent finds %+v", s)
		}
		m = next(m, file)
		h.launch(t, m)
	}
	h.counts(t, m, 4)
}

// suspendTime measures a suspend, here and now.
func suspendTime(t *testing.T) time.Duration {
	t.Helper()
	h := newHarness(t, nil)
	defer h.finish()
	m, file := h.witness(t)
	h.launch(t, m)
	begin := clock.System{}.Boot()
	h.suspend(t, m, file)
	return clock.System{}.Boot() - begin
}

// An agent that is killed at any moment of a suspend leaves a guest that goes on as
// it was, or one that is suspended, with its memory: the next agent makes it so.
func TestAgentKilledAtAnyMomentOfASuspend(t *testing.T) {
	random := seeded(t)
	whole := suspendTime(t)
	t.Logf("a suspend takes %s", whole)
	seen := map[vm.Phase]int{}
	// on a busy machine one may take much longer than that one did
	for n := 0; n < 14 || len(seen) < 2 && n < 42; n++ {
		h := newHarness(t, nil)
		m, file := h.witness(t)
		after := time.Duration(random.Float64() * 1.5 * float64(whole) * float64(1+n/14))
		order := agentOrder{h.opt.NodeShort, h.opt.DataDir, h.opt.RunDir, h.opt.RAMDir, h.opt.UIDDir, h.opt.Accel, m, false, file}
		s := h.adopt(t, func() { killAgent(t, order, after) })
		seen[s.Phase]++
		switch s.Phase {
		case vm.PhaseRunning:
			if left, _ := filepath.Glob(file + "*"); len(left) != 0 {
				t.Errorf("it goes on, and left is %v", left)
			}
		case vm.PhaseSuspended:
			m = next(m, file)
			h.launch(t, m)
		default:
			t.Fatalf("killed after %v: %+v", after, s)
		}
		h.counts(t, m, 1)
		if n := h.hypervisors(m); n != 1 {
			t.Errorf("%d hypervisors", n)
		}
		h.finish()
	}
	t.Logf("found after the kill: %v", seen)
	if len(seen) < 2 {
		t.Errorf("the kills all met the same state %v: they prove little", seen)
	}
}

// A hypervisor that is killed while it writes leaves no half memory: the guest has
// crashed, or it is suspended with all of it.
func TestHypervisorKilledWhileItSuspends(t *testing.T) {
	random := seeded(t)
	seen := map[vm.Phase]int{}
	for range 10 {
		rec := hypertest.NewRecorder()
		h := newHarness(t, rec.Sink)
		m, file := h.witness(t)
		h.launch(t, m)
		h.readLog(t, m, "guest ready")
		p := h.proc(t, m.VM).Hypervisor
		after := time.Duration(random.Float64() * float64(120*time.Millisecond))
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			_ = clock.System{}.Sleep(t.Context(), after)
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}()
		_, err := h.driver.Suspend(hypertest.Context(t), m.Ref, file)
		<-killed
		s := rec.Await(t, m.VM, "its end", func(s contract.Status) bool { return !s.Phase.OnNode() })
		seen[s.Phase]++
		left, _ := filepath.Glob(file + "*")
		switch s.Phase {
		case vm.PhaseCrashed:
			if err == nil || len(left) != 0 {
				t.Errorf("%v, and left is %v", err, left)
			}
		case vm.PhaseSuspended:
			if err != nil {
				t.Errorf("suspended: %v", err)
			}
			m = next(m, file)
			h.launch(t, m)
			h.counts(t, m, 1)
		default:
			t.Errorf("%+v %v", s, err)
		}
		h.finish()
	}
	t.Logf("found after the kill: %v", seen)
}

// What cannot be taken up is refused, and kept; what has no room is refused before
// the guest notices.
func TestSavedMemoryIsChecked(t *testing.T) {
	h := newHarness(t, nil)
	m, file := h.witness(t)
	h.launch(t, m)
	h.readLog(t, m, "guest ready")
	h.suspend(t, m, file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	m = next(m, file)
	if _, err := h.driver.Launch(hypertest.Context(t), m); err == nil {
		t.Fatal("it went on from half a memory")
	}
	if b, err := os.ReadFile(file); err != nil || len(b) != len(whole)/2 {
		t.Errorf("the file was not kept: %d %v", len(b), err)
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Epoch++
	h.launch(t, m)
	h.counts(t, m, 1)
	full := filepath.Join("/proc", "memory") // a file system without room
	if _, err := h.driver.Suspend(hypertest.Context(t), m.Ref, full); !errs.Is(err, errs.NoSpace) {
		t.Errorf("without room: %v", err)
	}
	h.counts(t, m, 2)
}
