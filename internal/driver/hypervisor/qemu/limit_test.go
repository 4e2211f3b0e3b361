package qemu_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// throttled reads what the kernel counted of a guest's group: periods in which it
// wanted to run, and those in which it was held back.
func (h *harness) throttled(t *testing.T, v id.ID) (periods, held int64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.opt.DataDir, "vms", v.String(), "machine.json"))
	var rec struct {
		Group string `json:"group"`
	}
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range h.cgroups() {
		stat, err := os.ReadFile(filepath.Join(node, rec.Group, "cpu.stat"))
		if err != nil || !strings.Contains(string(stat), "nr_throttled") {
			continue
		}
		for line := range strings.Lines(string(stat)) {
			name, n, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch name {
			case "nr_periods":
				periods, _ = strconv.ParseInt(n, 10, 64)
			case "nr_throttled":
				held, _ = strconv.ParseInt(n, 10, 64)
			}
		}
		return periods, held
	}
	t.Fatal("nothing counts the guest's processors")
	return 0, 0
}

// cpuTime is what a process has used, by its own account of the kernel.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var ns int64
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		ns += n
	}
	return time.Duration(ns)
}

// until waits for a level.
func until(ctx context.Context, t *testing.T, what string, reached func() bool) {
	t.Helper()
	for !reached() {
		if (clock.System{}).Sleep(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("waited for %s", what)
		}
	}
}

// A busy guest gets what its cap lets it, as the kernel counts: after each change, at
// once, without a restart; and its cap outlives its agent.
func TestCapHoldsABusyGuest(t *testing.T) {
	h := newHarness(t, hypertest.NewRecorder().Sink)
	ctx := hypertest.Context(t)
	if !h.driver.Capabilities().CPUCap {
		t.Skip("this host has no cpu controller to use")
	}
	m := h.linux(t)
	s, err := h.driver.Launch(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	sh := shell{t, c}
	sh.expect("NovaCron test guest ready")
	sh.run("yes >/dev/null & true")
	_ = c.Close()
	const percent = 20
	if err := h.driver.Limit(ctx, m.Ref, contract.Limits{CPUWeight: 50, CPUCapPercent: percent}); err != nil {
		t.Fatal(err)
	}
	h.heldBack(ctx, t, m, s.PID, percent)
	h.Away(t, nil)
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	h.heldBack(ctx, t, m, s.PID, percent)

	if err := h.driver.Limit(ctx, m.Ref, contract.Limits{}); err != nil {
		t.Fatal(err)
	}
	_, held := h.throttled(t, m.VM)
	used := cpuTime(t, s.PID)
	until(ctx, t, "a second of CPU time without a cap", func() bool { return cpuTime(t, s.PID)-used > time.Second })
	if _, now := h.throttled(t, m.VM); now > held+1 { // the period in which it changed
		t.Errorf("a guest without a cap was held back in %d periods", now-held)
	}
}

// heldBack waits until the kernel has held a guest back for a second, and compares what
// it used meanwhile with what these periods had for it.
func (h *harness) heldBack(ctx context.Context, t *testing.T, m contract.Machine, pid, percent int) {
	t.Helper()
	const period = 100 * time.Millisecond
	periods, held := h.throttled(t, m.VM)
	used := cpuTime(t, pid)
	until(ctx, t, "a guest that is held back", func() bool { _, now := h.throttled(t, m.VM); return now >= held+10 })
	after, _ := h.throttled(t, m.VM)
	used = cpuTime(t, pid) - used
	// one period before the first look, one that goes on, and the slack in which the
	// kernel hands out what is left of them
	had := time.Duration(after-periods+3) * period * time.Duration(percent) / 100
	t.Logf("used %v in %d periods of %v", used, after-periods, period)
	if used > had {
		t.Errorf("a guest with a cap of %d%% used %v in %d periods, which had %v for it", percent, used, after-periods, had)
	}
}

// What a guest writes takes as long as its disk's limit says, from the moment that is
// set; what was set at the launch and what is set later.
func TestDiskLimitsHoldAWriter(t *testing.T) {
	h := newHarness(t, hypertest.NewRecorder().Sink)
	ctx := hypertest.Context(t)
	m := h.linux(t)
	m.Disks = []contract.Disk{h.overlay(t, "a base image", filepath.Join(h.dir, "volumes"))}
	const rate, block, blocks = unit.MiB, 64 * unit.KiB, 48
	const bytes = blocks * block
	limits := func(l contract.DiskLimits) contract.Limits {
		return contract.Limits{Disks: map[id.ID]contract.DiskLimits{m.Disks[0].ID: l}}
	}
	m.Limits = limits(contract.DiskLimits{WriteBytesPerSecond: rate})
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
	write := func() time.Duration {
		began := clock.System{}.Boot()
		told := sh.run(fmt.Sprintf("[ -b /dev/vda ] && dd if=/dev/zero of=/dev/vda bs=64k count=%d oflag=direct", blocks))
		took := clock.System{}.Boot() - began
		if !strings.Contains(told, fmt.Sprintf("%d+0 records out", blocks)) {
			t.Fatalf("the guest did not write: %q", told)
		}
		return took
	}
	// What a tenth of a second allows goes at once, and so does the last request. Without
	// "direct" that may be all: QEMU makes one of requests that follow each other.
	const least = time.Second * time.Duration(bytes-block-rate/10) / time.Duration(rate) * 9 / 10
	took := write()
	if took < least {
		t.Errorf("%d bytes at %d bytes per second took %v", bytes, rate, took)
	}
	if err := h.driver.Limit(ctx, m.Ref, contract.Limits{}); err != nil {
		t.Fatal(err)
	}
	free := write()
	t.Logf("with a limit %v, without %v", took, free)
	if free > took/2 {
		t.Errorf("without a limit it took %v, with one %v", free, took)
	}
	if err := h.driver.Limit(ctx, m.Ref, limits(contract.DiskLimits{IOPS: 100, ReadBytesPerSecond: 10 * unit.MiB})); err != nil {
		t.Fatal(err)
	}
	if got := h.throttleOf(ctx, t, m); got != [2]int64{100, 10 * unit.MiB} {
		t.Errorf("QEMU limits the disk to %v", got)
	}
}

// throttleOf asks QEMU for what it limits the first disk to: requests, and bytes read.
func (h *harness) throttleOf(ctx context.Context, t *testing.T, m contract.Machine) [2]int64 {
	t.Helper()
	var blocks []struct {
		Inserted struct {
			IOPS int64 `json:"iops"`
			Read int64 `json:"bps_rd"`
		} `json:"inserted"`
	}
	h.Away(t, func() { // QEMU talks to one at a time
		mon, err := qmp.Dial(ctx, h.socket(m.VM, "control"), qmp.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = mon.Close() }()
		if err := mon.Execute(ctx, "query-block", nil, &blocks); err != nil || len(blocks) == 0 {
			t.Fatal(blocks, err)
		}
	})
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	return [2]int64{blocks[0].Inserted.IOPS, blocks[0].Inserted.Read}
}

// An agent that died with a change half made: whoever adopts the guest finishes it.
func TestHalfMadeLimitsAreFinished(t *testing.T) {
	h := newHarness(t, hypertest.NewRecorder().Sink)
	ctx := hypertest.Context(t)
	m := h.Machine(t, hypertest.Polite)
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	l := contract.Limits{Disks: map[id.ID]contract.DiskLimits{m.Disks[0].ID: {IOPS: 321, ReadBytesPerSecond: unit.MiB}}}
	h.Away(t, func() {
		b, err := json.Marshal(map[string]any{"limits": l})
		if err == nil {
			err = os.WriteFile(filepath.Join(h.opt.DataDir, "vms", m.VM.String(), "limits.json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if _, err := h.driver.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	if got := h.throttleOf(ctx, t, m); got != [2]int64{321, unit.MiB} {
		t.Errorf("QEMU limits the disk to %v", got)
	}
}
