package qemu_test

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
)

// control gives commands to a guest's QEMU while no agent is there: it talks to one
// at a time.
func (h *harness) control(ctx context.Context, t *testing.T, m contract.Machine, do func(func(name string, args any))) {
	t.Helper()
	mon, err := qmp.Dial(ctx, h.socket(m.VM, "control"), qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mon.Close() }()
	do(func(name string, args any) {
		t.Helper()
		if err := mon.Execute(ctx, name, args, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	})
}

// A disk of which a write fails, by QEMU's own blkdebug, halts its guest with the
// reason, which an agent that comes later tells too; and the guest goes on, having lost
// nothing, once the disk is well again.
func TestBadDiskHaltsTheGuestUntilItIsWell(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the guest's kernel is read as root")
	}
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	m := h.linux(t)
	m.Disks = []contract.Disk{h.overlay(t, "x", h.dir)}
	h.launch(t, m)
	typed := func(line string) shell {
		c, err := h.driver.Console(ctx, m.Ref)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
		return shell{t, c}
	}
	h.readLog(t, m, "ready")
	h.adopt(t, func() {
		h.control(ctx, t, m, func(tell func(string, any)) {
			tell("blockdev-add", map[string]any{"driver": "blkdebug", "node-name": "bad", "image": "vda-file", "inject-error": []any{
				map[string]any{"event": "write_aio", "errno": 5, "once": true}, // the write that is tried again succeeds
			}})
			tell("blockdev-reopen", map[string]any{"options": []any{map[string]any{
				"driver": "qcow2", "node-name": "vda", "file": "bad", "backing": "vda-base", "discard": "unmap", "read-only": false,
			}}})
		})
	})
	sh := typed("echo kept | dd of=/dev/vda bs=512 seek=4096 && sync && echo written''-all\r")
	const why = "i/o error on disk vda"
	rec.Await(t, m.VM, "the halt", func(s contract.Status) bool { return s.Phase == vm.PhasePaused && s.Reason == why })
	_ = sh.c.(io.Closer).Close()
	if s := h.adopt(t, nil); s.Phase != vm.PhasePaused || s.Reason != why {
		t.Fatalf("the next agent finds %+v", s)
	}
	sh = typed("")
	if s, err := h.driver.Resume(ctx, m.Ref); err != nil || s.Phase != vm.PhaseRunning || s.Reason != "" {
		t.Fatalf("resume gave %+v, %v", s, err)
	}
	sh.expect("written-all")
	if got := sh.run("dd if=/dev/vda bs=512 skip=4096 count=1 2>/dev/null | head -c 4"); !strings.Contains(got, "kept") {
		t.Errorf("what was written reads as %q", got)
	}
}
