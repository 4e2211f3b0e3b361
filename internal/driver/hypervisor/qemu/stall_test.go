package qemu_test

import (
	"bytes"
	"context"
	_ "embed"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// busySector is guestcode/busy.s: a guest that changes half a megabyte of memory over and
// over, faster than the bandwidth that these tests give it.
//
//go:embed guestcode/busy.bin
var busySector []byte

// outrunning takes a busy guest so far that it can be sent, over a way that is too slow.
func outrunning(t *testing.T, o contract.MoveOptions) *journey {
	t.Helper()
	near, far := newHarness(t, nil), newHarness(t, nil)
	near.trust(t)
	m := near.machine(t, append([]byte(nil), busySector...))
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	if o.BytesPerSecond == 0 {
		o.BytesPerSecond, o.Downtime = 2*unit.MiB, 100*time.Millisecond
	}
	return near.departs(t, far, m, o)
}

// trust has the guests of a host execute while they are sent.
func (h *harness) trust(t *testing.T) {
	t.Helper()
	h.opt.TrustEmulation = true
	h.Away(t, nil)
}

// echoes expects of a guest that it executes.
func (h *harness) echoes(t *testing.T, m contract.Machine) {
	t.Helper()
	c, err := h.driver.Console(hypertest.Context(t), m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "z"); err != nil {
		t.Fatal(err)
	}
	shell{t, c}.expect("z")
}

// stewarded sends, judges each second of what is seen, and gives what was answered.
func (j *journey) stewarded(t *testing.T, steps migration.Steps, longest time.Duration) (answers []migration.Step, slowed int, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(hypertest.Context(t))
	defer cancel()
	var watch migration.Watch
	means := migration.Means{Downtime: 100 * time.Millisecond}
	var adjusting sync.WaitGroup
	err = j.send(ctx, func(p contract.Progress) {
		if p.Stage != contract.StageMemory {
			return
		}
		slowed = max(slowed, p.Throttle)
		watch.Add(migration.Sample{At: clock.System{}.Boot(), Round: p.Round, Moved: p.MemoryMoved, Remaining: p.MemoryRemaining})
		why := watch.Stalled(2 * time.Second)
		if why == migration.NotStalled {
			return
		}
		watch.Forget()
		var step migration.Step
		if step, means = steps.Answer(why, means, longest); step == migration.GiveUp {
			cancel()
		}
		t.Logf("%s: %s, %+v at %+v", why, step, means, p)
		answers = append(answers, step)
		now := contract.Adjustment{Throttle: means.Throttle, Downtime: means.Downtime}
		adjusting.Go(func() {
			if err := j.near.driver.Adjust(ctx, j.from.Ref, now); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	})
	adjusting.Wait()
	return answers, slowed, err
}

// handsOver gives a guest that has arrived to its new host, where it executes.
func (j *journey) handsOver(t *testing.T) {
	t.Helper()
	ctx := hypertest.Context(t)
	if _, err := j.far.driver.Arrived(ctx, j.to.Ref); err != nil {
		t.Fatal(err)
	}
	if s, err := j.far.driver.Resume(ctx, j.to.Ref); err != nil || s.Phase != vm.PhaseRunning {
		t.Fatalf("%+v %v", s, err)
	}
	j.far.echoes(t, j.to)
}

// Whatever a guest writes while it moves, its memory is the same on both hosts once it has
// arrived, byte for byte. This one forgets nothing of its pages: what such a guest writes an
// older QEMU does not see while it emulates, and it is halted for that, and only there.
func TestMemoryIsTheSameOnBothHosts(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	about, err := near.driver.Describe(hypertest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	sector := append([]byte(nil), busySector...)
	if n := bytes.Count(sector, flipCR0); n != 1 {
		t.Fatalf("the guest flips a bit in %d places", n)
	}
	m := near.machine(t, bytes.Replace(sector, flipCR0, bytes.Repeat([]byte{0x90}, len(flipCR0)), 1))
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	j := near.departs(t, far, m, contract.MoveOptions{BytesPerSecond: 2 * unit.MiB, Downtime: 50 * time.Millisecond})
	executed := false
	var lengthened sync.WaitGroup
	var once sync.Once
	if err := j.send(hypertest.Context(t), func(p contract.Progress) {
		executed = executed || p.Stage == contract.StageMemory && p.MemoryMoved > 0
		if p.Stage != contract.StageMemory || p.Round < 5 {
			return
		}
		once.Do(func() { // who sees all of its writes sees no end of them
			lengthened.Go(func() {
				_ = near.driver.Adjust(hypertest.Context(t), m.Ref, contract.Adjustment{Downtime: time.Second})
			})
		})
	}); err != nil {
		t.Fatal(err)
	}
	lengthened.Wait()
	if _, err := far.driver.Arrived(hypertest.Context(t), j.to.Ref); err != nil {
		t.Fatal(err)
	}
	if n := differing(t, near.memory(t, j.from), far.memory(t, j.to)); n > 0 {
		t.Errorf("%d pages are another", n)
	}
	if j.last.Downtime <= 0 {
		t.Errorf("halted for %v", j.last.Downtime)
	}
	if executed == migration.Older(about.Version, "9") {
		t.Errorf("under QEMU %s, it executed while its memory was sent: %t", about.Version, executed)
	}
	t.Logf("QEMU %s: %d rounds, halted for %v", about.Version, j.last.Round, j.last.Downtime)
	j.handsOver(t)
}

// flipCR0 is the code by which the busy guest has its processor forget what it knows of
// pages: mov %cr0, %eax; xor $0x10000, %eax; mov %eax, %cr0.
var flipCR0 = []byte{0x0f, 0x20, 0xc0, 0x66, 0x35, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xc0}

// memory is all of a machine's that executes nothing.
func (h *harness) memory(t *testing.T, m contract.Machine) []byte {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(h.opt.RAMDir, h.opt.NodeShort, m.VM.String()+"*"))
	if len(found) != 1 {
		t.Fatalf("its memory is %v", found)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// differing counts pages.
func differing(t *testing.T, a, b []byte) (n int) {
	t.Helper()
	if len(a) != len(b) || len(a) == 0 {
		t.Fatalf("%d and %d bytes", len(a), len(b))
	}
	for at := 0; at < len(a); at += 4096 {
		if !bytes.Equal(a[at:at+4096], b[at:at+4096]) {
			n++
		}
	}
	return n
}

// An end that takes longer than the patience, all memory of a guest that is halted for it
// among it, is given up, and the guest goes on.
func TestHaltedForTooLong(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m := near.machine(t, append([]byte(nil), busySector...))
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	j := near.departs(t, far, m, contract.MoveOptions{BytesPerSecond: 256 << 10, Patience: time.Second})
	err := j.send(hypertest.Context(t), nil)
	if !errs.Is(err, errs.HostFailure) || !strings.Contains(err.Error(), "longer than 1s") {
		t.Fatal(err)
	}
	near.echoes(t, m)
}

// A guest that changes memory faster than it is sent comes to its end once its processors
// are slowed down enough.
func TestThrottleConverges(t *testing.T) {
	j := outrunning(t, contract.MoveOptions{})
	answers, slowed, err := j.stewarded(t, "throttle", 0)
	if err != nil || len(answers) == 0 || answers[0] != migration.Throttle || slowed == 0 {
		t.Fatalf("%v after %v: %+v", err, answers, j.last)
	}
	j.handsOver(t)
}

// It comes to its end when it may be halted for longer, and is not slowed down for that.
func TestDowntimeConverges(t *testing.T) {
	j := outrunning(t, contract.MoveOptions{})
	answers, slowed, err := j.stewarded(t, "downtime", time.Second)
	if err != nil || len(answers) == 0 || answers[0] != migration.Lengthen || slowed > 0 {
		t.Fatalf("%v after %v: %+v", err, answers, j.last)
	}
	j.handsOver(t)
}

// It is given up, and goes on where it is, with no trace of the move and at its full speed.
func TestGivenUpGoesOn(t *testing.T) {
	// so slow that it is too slow for a guest, too, that this host is too busy for
	j := outrunning(t, contract.MoveOptions{BytesPerSecond: 512 << 10, Downtime: 20 * time.Millisecond})
	answers, _, err := j.stewarded(t, "give_up", 0)
	if err == nil || len(answers) != 1 || !strings.Contains(err.Error(), "goes on here") {
		t.Fatalf("%v after %v", err, answers)
	}
	j.near.echoes(t, j.from)
	if s, err := j.near.driver.Inspect(hypertest.Context(t), j.from.VM); err != nil || s.Phase != vm.PhaseRunning {
		t.Errorf("%+v %v", s, err)
	}
}

// How fast a guest changes its memory is seen without moving it; who looks at once shares
// one look.
func TestSampleOfMemory(t *testing.T) {
	h := newHarness(t, nil)
	idle, busy := h.machine(t, append([]byte(nil), benchSector...)), h.machine(t, append([]byte(nil), busySector...))
	for _, m := range []contract.Machine{idle, busy} {
		h.launch(t, m)
		h.readLog(t, m, "guest ready")
	}
	rates := make(chan int64, 3)
	for _, m := range []contract.Machine{idle, busy, busy} {
		go func() {
			rate, err := h.driver.Sample(hypertest.Context(t), m.Ref)
			if err != nil {
				t.Error(err)
			}
			if m.VM == idle.VM && rate != unit.MiB { // none that can be told
				t.Errorf("an idle guest changes %d", rate)
			}
			rates <- rate
		}()
	}
	for range 3 {
		if rate := <-rates; rate < unit.MiB || rate > 16*unit.MiB {
			t.Errorf("a guest of 16 MiB changes %d", rate)
		}
	}
	h.echoes(t, busy)
	if _, err := h.driver.Sample(hypertest.Context(t), contract.Ref{VM: busy.VM, Epoch: 7}); !errs.Is(err, errs.StaleEpoch) {
		t.Error(err)
	}
}
