package qemu_test

import (
	"context"
	_ "embed"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
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
	m := near.machine(t, append([]byte(nil), busySector...))
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	o.BytesPerSecond, o.Downtime = 2*unit.MiB, 100*time.Millisecond
	return near.departs(t, far, m, o)
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
	j := outrunning(t, contract.MoveOptions{})
	answers, _, err := j.stewarded(t, "give_up", 0)
	if err == nil || len(answers) != 1 || !strings.Contains(err.Error(), "goes on here") {
		t.Fatalf("%v after %v", err, answers)
	}
	j.near.echoes(t, j.from)
	if s, err := j.near.driver.Inspect(hypertest.Context(t), j.from.VM); err != nil || s.Phase != vm.PhaseRunning {
		t.Errorf("%+v %v", s, err)
	}
}
