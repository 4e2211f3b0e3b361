package qemu_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// journey is a machine on its way between two hosts.
type journey struct {
	t        testing.TB
	near     *harness
	far      *harness
	from, to contract.Machine
	landing  contract.Landing
	wire     *hypertest.Wire
	last     contract.Progress
}

// departs takes a machine so far that it can be sent.
func (h *harness) departs(t *testing.T, far *harness, m contract.Machine, o contract.MoveOptions) *journey {
	t.Helper()
	ctx := hypertest.Context(t)
	d, err := h.driver.Depart(ctx, m.Ref, id.New(), o)
	if err != nil {
		t.Fatal(err)
	}
	j := &journey{t: t, near: h, far: far, from: m, to: far.Twin(t, m)}
	if j.landing, err = far.driver.Receive(ctx, j.to, d); err != nil {
		t.Fatal(err)
	}
	j.wire = hypertest.NewWire(hypertest.Into(far.migrator, j.to.Ref))
	return j
}

func (j *journey) send(ctx context.Context, at func(contract.Progress)) error {
	_, err := j.near.driver.Send(ctx, j.from.Ref, j.landing, j.wire.Dial, func(p contract.Progress) {
		j.last = p
		if at != nil {
			at(p)
		}
	})
	return err
}

// arrives sends, and hands the machine over to its target.
func (j *journey) arrives(t *testing.T) contract.Machine {
	t.Helper()
	ctx := hypertest.Context(t)
	if err := j.send(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.far.driver.Arrived(ctx, j.to.Ref); err != nil {
		t.Fatal(err)
	}
	if s, err := j.far.driver.Resume(ctx, j.to.Ref); err != nil || s.Phase != vm.PhaseRunning {
		t.Fatalf("%+v %v", s, err)
	}
	if _, err := j.near.driver.Kill(ctx, j.from.Ref); err != nil {
		t.Fatal(err)
	}
	if err := j.near.driver.Release(ctx, j.from.VM); err != nil {
		t.Fatal(err)
	}
	return j.to
}

// movesTo moves a machine that runs.
func (h *harness) movesTo(t *testing.T, far *harness, m contract.Machine, o contract.MoveOptions) (contract.Machine, contract.Progress) {
	t.Helper()
	j := h.departs(t, far, m, o)
	return j.arrives(t), j.last
}

// pattern fills what of a disk the guest does not know.
func pattern(t *testing.T, path string, from, size int64) []byte {
	t.Helper()
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i>>9) ^ byte(i)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(want, from)
		_ = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// A guest that knows its memory and how far it has counted moves there and back, by each
// way that memory can go, and counts on; its disk is the same byte for byte.
func TestMemoryAndDiskSurviveAMove(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	want := pattern(t, m.Disks[0].File.Path, 4096, 512<<10)
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	for n, o := range []contract.MoveOptions{
		{}, {Channels: 2}, {Channels: 4, Compression: "zstd"}, {AutoConverge: true, Downtime: 50 * time.Millisecond}, {BytesPerSecond: 20 * unit.MiB},
	} {
		near.counts(t, m, n+1)
		var p contract.Progress
		m, p = near.movesTo(t, far, m, o)
		t.Logf("%+v: %+v", o, p)
		near, far = far, near
		got, err := os.ReadFile(m.Disks[0].File.Path)
		if err != nil || !bytes.Equal(got[4096:4096+len(want)], want) {
			t.Fatalf("with %+v the disk is another: %v", o, err)
		}
	}
	near.counts(t, m, 6)
	if left := far.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Of a disk on a base only what is its own goes along.
func TestOverlaysMoveAlone(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	base := filepath.Join(near.dir, "base.raw")
	sector := append(bytes.Clone(witnessSector), make([]byte, 8<<20-len(witnessSector))...)
	if err := os.WriteFile(base, sector, 0o644); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(near.dir, "overlay.qcow2")
	shell := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	shell("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
	shell("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 1M 256k", "-c", "write -z 2M 64k", overlay)
	m.Disks[0].File = contract.File{Path: overlay, Format: "qcow2"}
	m.Disks[0].Backing = &contract.File{Path: base, Format: "raw"}
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	near.counts(t, m, 1)
	to, p := near.movesTo(t, far, m, contract.MoveOptions{})
	far.counts(t, to, 2)
	if p.DisksMoved > unit.MiB {
		t.Errorf("%d bytes of the disk went, which has 320 KiB of its own", p.DisksMoved)
	}
	if _, err := far.driver.Kill(hypertest.Context(t), to.Ref); err != nil {
		t.Fatal(err)
	}
	shell("qemu-img", "compare", "-q", overlay, to.Disks[0].File.Path)
}

// All disks that a guest may write to go along, beside one that it only reads and a CD in
// its drive, which the target has already.
func TestSeveralDisksMove(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	add := func(name string, size int64, readOnly bool) string {
		t.Helper()
		path := filepath.Join(near.dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Disks = append(m.Disks, contract.Disk{ID: id.New(), ReadOnly: readOnly, File: contract.File{Path: path, Format: "raw"}})
		return path
	}
	second, third := add("second.raw", 3<<20, false), add("third.raw", 2<<20, false)
	add("fixed.raw", 1<<20, true)
	want := [][]byte{pattern(t, second, 0, 3<<20), pattern(t, third, 1<<20, 1<<19)}
	cd := filepath.Join(near.dir, "cd.iso")
	if err := os.WriteFile(cd, bytes.Repeat([]byte("cd"), 4<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Drive, m.Medium = true, &contract.Medium{ID: strings.Repeat("ab", 32), File: contract.File{Path: cd, Format: "raw"}}
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	near.counts(t, m, 1)
	to, p := near.movesTo(t, far, m, contract.MoveOptions{})
	far.counts(t, to, 2)
	if p.DisksMoved < 6<<20 {
		t.Errorf("%d bytes of disks went", p.DisksMoved)
	}
	if got, err := far.driver.Medium(hypertest.Context(t), to.Ref); err != nil || got != m.Medium.ID {
		t.Errorf("in the drive is %q: %v", got, err)
	}
	for i, from := range []int{0, 1 << 20} {
		got, err := os.ReadFile(to.Disks[i+1].File.Path)
		if err != nil || !bytes.Equal(got[from:from+len(want[i])], want[i]) {
			t.Errorf("disk %d is another: %v", i+1, err)
		}
	}
}

// traces is what a move could leave in a guest's hypervisor and in its folder.
func (h *harness) traces(t *testing.T, m contract.Machine) string {
	t.Helper()
	var out []string
	ctx := hypertest.Context(t)
	h.adopt(t, func() {
		h.onMonitor(ctx, t, m, func(c *qmp.Client) {
			for _, q := range []string{"query-block-jobs", "query-block-exports", "query-migrate-capabilities", "query-named-block-nodes", "query-status"} {
				var said json.RawMessage
				if err := c.Execute(ctx, q, nil, &said); err != nil {
					t.Fatal(err)
				}
				out = append(out, string(said))
			}
		})
	})
	dir, err := os.ReadDir(filepath.Join(h.opt.RunDir, h.opt.NodeShort, m.VM.String(), "inside"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dir {
		out = append(out, e.Name())
	}
	return strings.Join(out, "\n")
}

// The table of the commit rule, on a real QEMU: what becomes of source and target when one
// of them dies at a stage, and that a source whose move failed shows no trace of it.
func TestCommitRule(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage contract.Stage
		do    func(j *journey, cancel func())
	}{
		{"target dies while disks are copied", contract.StageDisks, func(j *journey, _ func()) { j.far.CrashGuest(t, j.to.VM) }},
		{"target dies while memory is copied", contract.StageMemory, func(j *journey, _ func()) { j.far.CrashGuest(t, j.to.VM) }},
		{"target dies at the switch-over", contract.StageSwitchover, func(j *journey, _ func()) { j.far.CrashGuest(t, j.to.VM) }},
		{"broken off at the switch-over", contract.StageSwitchover, func(_ *journey, cancel func()) { cancel() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := newHarness(t, nil), newHarness(t, nil)
			m, _ := near.witness(t)
			near.launch(t, m)
			near.readLog(t, m, "guest ready")
			near.counts(t, m, 1)
			before := near.traces(t, m)
			j := near.departs(t, far, m, contract.MoveOptions{})
			ctx, cancel := context.WithCancel(hypertest.Context(t))
			defer cancel()
			done := false
			err := j.send(ctx, func(p contract.Progress) {
				if p.Stage == c.stage && !done {
					done = true
					c.do(j, cancel)
				}
			})
			if err == nil {
				t.Fatal("it was sent")
			}
			t.Log(err)
			near.counts(t, m, 2)
			if after := near.traces(t, m); after != before {
				t.Errorf("the move left traces:\n%s\n%s", before, after)
			}
			if s, err := far.driver.Kill(hypertest.Context(t), j.to.Ref); err != nil || s.Phase.OnNode() {
				t.Errorf("the target is %+v: %v", s, err)
			}
		})
	}
}

// The row of the table that corrupts: a source that goes on after its target has executed
// runs old memory. The driver cannot know, which is why a caller may resume a source only
// when the target never executed; until it is told, the source stays halted.
func TestSourceStaysHaltedWhileTheTargetRuns(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	near.counts(t, m, 1)
	j := near.departs(t, far, m, contract.MoveOptions{})
	ctx := hypertest.Context(t)
	if err := j.send(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := far.driver.Arrived(ctx, j.to.Ref); err != nil {
		t.Fatal(err)
	}
	if _, err := far.driver.Resume(ctx, j.to.Ref); err != nil {
		t.Fatal(err)
	}
	far.counts(t, j.to, 2)
	for range 2 {
		if s := near.adopt(t, func() {}); s.Phase != vm.PhasePaused || s.Reason != contract.SentAway {
			t.Fatalf("the source is %+v", s)
		}
	}
	far.counts(t, j.to, 3)
}

// What a wire holds back at the end does not hold the guest for ever: the move is given
// up after its patience, and the guest goes on.
func TestStalledSwitchover(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	near.counts(t, m, 1)
	j := near.departs(t, far, m, contract.MoveOptions{Patience: 2 * time.Second})
	var free func()
	begin := clock.System{}.Boot()
	err := j.send(hypertest.Context(t), func(p contract.Progress) {
		if p.Stage == contract.StageSwitchover && free == nil {
			free = j.wire.Stall()
		}
	})
	took := clock.System{}.Boot() - begin
	if free == nil {
		t.Fatal("there was no switch-over")
	}
	free()
	if err == nil || took > 30*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	near.counts(t, m, 2)
}

// Keys are in files for moments only, and never on a command line.
func TestKeysOfAMoveAreGone(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	near.launch(t, m)
	j := near.departs(t, far, m, contract.MoveOptions{})
	look := func(hosts ...*harness) {
		for _, h := range hosts {
			_ = filepath.WalkDir(h.dir, func(path string, e os.DirEntry, err error) error {
				if e == nil || !e.Type().IsRegular() {
					return err
				}
				b, _ := os.ReadFile(path)
				if bytes.Contains(b, []byte(`"key":"`)) {
					t.Errorf("a key is in %s", path)
				}
				return nil
			})
		}
	}
	if err := j.send(hypertest.Context(t), func(p contract.Progress) {
		if p.Stage == contract.StageSwitchover {
			look(near)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.driver.Arrived(hypertest.Context(t), j.to.Ref); err != nil {
		t.Fatal(err)
	}
	look(near, far)
}

// What is not as large as where it comes from is not received.
func TestDisksOfOtherSizesAreNotReceived(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	near.launch(t, m)
	d, err := near.driver.Depart(hypertest.Context(t), m.Ref, id.New(), contract.MoveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	to := far.Twin(t, m)
	if err := os.Truncate(to.Disks[0].File.Path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := far.driver.Receive(hypertest.Context(t), to, d); !errs.Is(err, errs.InvalidSize) {
		t.Errorf("got %v", err)
	}
	if left := far.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A guest that arrived from another host is suspended there, and goes on from the file,
// however it was sent.
func TestArrivedIsSuspended(t *testing.T) {
	for _, channels := range []int{0, 2} {
		near, far := newHarness(t, nil), newHarness(t, nil)
		m := near.machine(t, append([]byte(nil), benchSector...))
		near.launch(t, m)
		near.readLog(t, m, "guest ready")
		m, _ = near.movesTo(t, far, m, contract.MoveOptions{Channels: channels})
		file := filepath.Join(far.dir, "memory")
		if s, err := far.driver.Suspend(hypertest.Context(t), m.Ref, file); err != nil || s.Phase != vm.PhaseSuspended {
			t.Fatalf("with %d channels: %+v %v", channels, s, err)
		}
		m = next(m, file)
		far.launch(t, m)
		far.echoes(t, m)
	}
}

func (h *harness) migrator() contract.Migrator { return h.driver }
