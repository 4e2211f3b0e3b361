package qemu_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// agentFace makes the test binary an agent that launches one machine, and lives
// until it is killed.
const agentFace = "agent-that-launches"

type agentOrder struct {
	NodeShort, DataDir, RunDir, RAMDir, UIDDir, Accel string

	Machine contract.Machine
	// End makes the agent kill and release the machine right after its launch.
	End bool
	// Suspend makes it suspend the machine to the file right after its launch.
	Suspend string
}

func agentMain() int {
	var o agentOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return 1
	}
	d, err := qemu.New(qemu.Options{
		NodeShort: o.NodeShort, DataDir: o.DataDir, RunDir: o.RunDir, RAMDir: o.RAMDir, UIDDir: o.UIDDir, Accel: o.Accel,
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if !o.End && o.Suspend == "" {
		fmt.Println("begins")
	}
	if _, err := d.Launch(context.Background(), o.Machine); err != nil {
		fmt.Println(err)
		return 1
	}
	if o.Suspend != "" {
		fmt.Println("begins")
		_, err = d.Suspend(context.Background(), o.Machine.Ref, o.Suspend)
		fmt.Println(err)
	}
	if o.End {
		fmt.Println("begins")
		_, err = d.Kill(context.Background(), o.Machine.Ref)
		err = errors.Join(err, d.Release(context.Background(), o.Machine.VM))
		fmt.Println(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// An agent that is killed at any moment of a launch leaves a world that the next
// agent understands: nothing, a half start that can be done anew, or a running
// guest; never two of them, and nothing after the end.
func TestAgentKilledAtAnyMomentOfALaunch(t *testing.T) {
	random := seeded(t)
	whole := launchTime(t)
	t.Logf("a launch takes %s", whole)
	seen := map[vm.Phase]int{}
	for range 24 {
		after := time.Duration(random.Float64() * 1.5 * float64(whole))
		seen[killedLaunch(t, after)]++
	}
	t.Logf("found after the kill: %v", seen)
	if len(seen) < 2 {
		t.Errorf("the kills all met the same state %v: they prove little", seen)
	}
}

// launchTime measures a first launch on a fresh host, here and now.
func launchTime(t *testing.T) time.Duration {
	t.Helper()
	h := newHarness(t, nil)
	defer h.finish()
	m := h.Machine(t, hypertest.Polite)
	begin := clock.System{}.Boot()
	h.launch(t, m)
	return clock.System{}.Boot() - begin
}

// seeded gives random numbers that a failure can be replayed with.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(20260101)
	if s := os.Getenv("NOVACRON_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("NOVACRON_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// An agent that is killed at any moment of ending a guest leaves what the next one
// can end, and then nothing.
func TestAgentKilledAtAnyMomentOfTheEnd(t *testing.T) {
	random := seeded(t)
	seen := map[vm.Phase]int{}
	for range 10 {
		after := time.Duration(random.Float64() * float64(25*time.Millisecond))
		h := newHarness(t, nil)
		ctx := hypertest.Context(t)
		m := h.Machine(t, hypertest.Polite)
		h.Away(t, func() {
			killAgent(t, agentOrder{h.opt.NodeShort, h.opt.DataDir, h.opt.RunDir, h.opt.RAMDir, h.opt.UIDDir, h.opt.Accel, m, true, ""}, after)
		})
		found, err := h.driver.Adopt(ctx)
		if err != nil {
			t.Fatal(err)
		}
		phase := vm.Phase("")
		for _, s := range found {
			phase = s.Phase
		}
		seen[phase]++
		if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
			t.Fatal(err)
		}
		if err := h.driver.Release(ctx, m.VM); err != nil {
			t.Fatal(err)
		}
		if left := h.Leftovers(); len(left) > 0 {
			t.Fatalf("a kill at %s, in phase %q, left in the end:\n%s", after, phase, strings.Join(left, "\n"))
		}
		h.finish()
	}
	t.Logf("found after the kill: %v", seen)
}

// killedLaunch runs one launch in a process of its own, kills it after a time and
// gives the phase in which the next agent found the VM ("" for not at all).
func killedLaunch(t *testing.T, after time.Duration) vm.Phase {
	t.Helper()
	h := newHarness(t, nil)
	defer h.finish()
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	h.Away(t, func() {
		killAgent(t, agentOrder{h.opt.NodeShort, h.opt.DataDir, h.opt.RunDir, h.opt.RAMDir, h.opt.UIDDir, h.opt.Accel, m, false, ""}, after)
	})
	found, err := h.driver.Adopt(ctx)
	if err != nil {
		t.Fatal(err)
	}
	phase := vm.Phase("")
	if len(found) == 1 {
		phase = found[0].Phase
	}
	if n := h.hypervisors(m); n > 1 {
		t.Fatalf("%d hypervisors after a kill at %s", n, after)
	}
	if phase == "" && h.hypervisors(m) > 0 {
		t.Fatalf("a hypervisor runs that the next agent does not see, after a kill at %s", after)
	}
	s, err := h.driver.Launch(ctx, m) // the workflow's next attempt
	if err != nil || s.Phase != vm.PhaseRunning {
		t.Fatalf("after a kill at %s, in phase %q, launch gives %+v, %v", after, phase, s, err)
	}
	if phase == vm.PhaseRunning && s.PID != found[0].PID {
		t.Fatalf("a running guest was started again")
	}
	if n := h.hypervisors(m); n != 1 {
		t.Fatalf("%d hypervisors after the next attempt", n)
	}
	if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Release(ctx, m.VM); err != nil {
		t.Fatal(err)
	}
	if left := h.Leftovers(); len(left) > 0 {
		t.Fatalf("a kill at %s left in the end:\n%s", after, strings.Join(left, "\n"))
	}
	return phase
}

// killAgent starts an agent and kills it some time after it has begun to launch.
func killAgent(t *testing.T, o agentOrder, after time.Duration) {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", agentFace)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(append(b, '\n')); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 64)
	if n, err := out.Read(said); err != nil || !strings.HasPrefix(string(said[:n]), "begins") {
		t.Fatalf("the agent says %q, %v", said[:n], err)
	}
	if err := (clock.System{}).Sleep(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// hypervisors counts the QEMUs of a machine, by their command lines.
func (h *harness) hypervisors(m contract.Machine) int {
	n := 0
	for _, p := range h.processes() {
		if strings.Contains(p, filepath.Base(qemuProgram())) {
			n++
		}
	}
	return n
}

func qemuProgram() string {
	p, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return "qemu-system-x86_64"
	}
	return p
}

// Without root there are no users and perhaps no cgroups; everything else works,
// and the driver says what is missing.
func TestWithoutRoot(t *testing.T) {
	if os.Getuid() != 0 {
		return // every other test of this package shows it
	}
	dir := hypertest.ShortDir(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(hypertest.Context(t), program, "-test.run",
		"TestConfinement|TestConformance/(Launch_returns|Adopt_finds_a_running|Release_leaves)", "-test.v")
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") < 6 {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
}
