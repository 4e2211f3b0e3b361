package qemu_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// medium makes an image that begins with a text.
func (h *harness) medium(t *testing.T, text string) *contract.Medium {
	t.Helper()
	all := append([]byte(text), make([]byte, 64<<10-len(text))...)
	sum := sha256.Sum256(all)
	m := &contract.Medium{ID: hex.EncodeToString(sum[:])}
	m.File = contract.File{Path: filepath.Join(h.dir, m.ID), Format: "raw"}
	if err := os.WriteFile(m.File.Path, all, 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

func (h *harness) change(t *testing.T, r contract.Ref, m *contract.Medium, force bool) {
	t.Helper()
	if err := h.driver.ChangeMedium(hypertest.Context(t), r, m, force); err != nil {
		t.Fatal(err)
	}
}

// A Linux guest sees that the CD in its drive is another one, or none; it keeps one that
// it has in use until it is forced; and it finds the one it had after a suspend, and
// after its reboot.
func TestLinuxGuestSeesItsMediumChange(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := h.linux(t)
	m.Drive = true
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	sh := shell{t, c}
	sh.expect("NovaCron test guest ready")
	sees := func(want string) {
		t.Helper()
		got := sh.run("[ -b /dev/sr0 ] || sleep 3; head -c 9 /dev/sr0 || echo no''thing")
		if !strings.Contains(got, want) {
			t.Errorf("the guest sees %q, want %q", got, want)
		}
	}
	one, two := h.medium(t, "first-cd."), h.medium(t, "second-cd")
	sees("nothing")
	h.change(t, m.Ref, one, false)
	sees("first-cd.")
	h.change(t, m.Ref, two, false)
	sees("second-cd")
	h.change(t, m.Ref, nil, false)
	sees("nothing")
	h.change(t, m.Ref, one, false)

	sh.run("{ sleep 1000 < /dev/sr0 & }")
	sees("first-cd.")
	if err := h.driver.ChangeMedium(ctx, m.Ref, nil, false); !errs.Is(err, errs.InUse) || !strings.Contains(err.Error(), "unmount") {
		t.Errorf("a CD in use was given back: %v", err)
	}
	sees("first-cd.")
	h.change(t, m.Ref, nil, true)
	sh.run("kill %1; wait")
	sees("nothing")
	h.change(t, m.Ref, two, false)
	sees("second-cd")

	// while it is halted: what it has in use it keeps, and is not asked for later; the
	// rest changes, and it finds that when it goes on
	halted := func(while func()) {
		t.Helper()
		if _, err := h.driver.Pause(ctx, m.Ref); err != nil {
			t.Fatal(err)
		}
		while()
		if _, err := h.driver.Resume(ctx, m.Ref); err != nil {
			t.Fatal(err)
		}
	}
	halted(func() { h.change(t, m.Ref, one, false) })
	sees("first-cd.")
	sh.run("{ sleep 1000 < /dev/sr0 & }")
	sees("first-cd.")
	halted(func() {
		if err := h.driver.ChangeMedium(ctx, m.Ref, two, false); !errs.Is(err, errs.InUse) || !strings.Contains(err.Error(), "paused") {
			t.Errorf("a CD in use was taken from a guest that is halted: %v", err)
		}
	})
	sees("first-cd.")
	sh.run("kill %1; wait")
	halted(func() { h.change(t, m.Ref, nil, false) })
	sees("nothing")
	h.change(t, m.Ref, two, false)
	sees("second-cd")
	sh.run("eject /dev/sr0 2>/dev/null || true")
	h.change(t, m.Ref, two, false) // a tray that the guest opened closes
	sees("second-cd")
	_ = c.Close()

	file := filepath.Join(hypertest.ShortDir(t), "memory")
	h.suspend(t, m, file)
	m = next(m, file)
	m.Medium = two
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	if c, err = h.driver.Console(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	sh = shell{t, c}
	sees("second-cd")
	h.change(t, m.Ref, one, false)
	sees("first-cd.")
	sh.run("{ sleep 1; echo b > /proc/sysrq-trigger; } & true")
	sh.expect("NovaCron test guest ready")
	sees("first-cd.")
	h.change(t, m.Ref, nil, false)
	sees("nothing")
}

// Whatever an agent that died had done of a change, the next one brings what it is asked
// for, and leaves nothing behind.
func TestMediumAfterEveryStep(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := h.machine(t, benchSector)
	m.Drive = true
	one, two := h.medium(t, "one"), h.medium(t, "two")
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	node := "cd-" + two.ID[:23]
	type args = map[string]any
	steps := []func(*qmp.Client) error{
		func(c *qmp.Client) error {
			f, err := os.Open(two.File.Path)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = c.AddFile(ctx, "medium "+two.ID, f)
			return err
		},
		func(c *qmp.Client) error {
			var sets []struct {
				Number int `json:"fdset-id"`
			}
			if err := c.Execute(ctx, "query-fdsets", nil, &sets); err != nil {
				return err
			}
			newest := 0
			for _, s := range sets {
				newest = max(newest, s.Number)
			}
			return c.Execute(ctx, "blockdev-add", args{"driver": "file", "node-name": node + "-file", "filename": fmt.Sprintf("/dev/fdset/%d", newest), "read-only": true}, nil)
		},
		func(c *qmp.Client) error {
			return c.Execute(ctx, "blockdev-add", args{"driver": "raw", "node-name": node, "file": node + "-file", "read-only": true}, nil)
		},
		func(c *qmp.Client) error {
			return c.Execute(ctx, "blockdev-open-tray", args{"id": "drive", "force": true}, nil)
		},
		func(c *qmp.Client) error {
			return c.Execute(ctx, "blockdev-remove-medium", args{"id": "drive"}, nil)
		},
		func(c *qmp.Client) error {
			return c.Execute(ctx, "blockdev-insert-medium", args{"id": "drive", "node-name": node}, nil)
		},
		func(c *qmp.Client) error { return c.Execute(ctx, "blockdev-close-tray", args{"id": "drive"}, nil) },
	}
	for done := range len(steps) + 1 {
		for _, then := range []*contract.Medium{nil, one, two} {
			h.change(t, m.Ref, one, false)
			var before []string
			h.adopt(t, func() {
				h.onMonitor(ctx, t, m, func(c *qmp.Client) {
					before = leftInQEMU(ctx, t, c, nil)
					for i, step := range steps[:done] {
						if err := step(c); err != nil {
							t.Fatalf("step %d: %v", i, err)
						}
					}
				})
			})
			h.change(t, m.Ref, then, false)
			want := ""
			if then != nil {
				want = then.ID
			}
			if got, err := h.driver.Medium(ctx, m.Ref); err != nil || got != want {
				t.Errorf("after %d steps: the drive has %q, want %q; %v", done, got, want, err)
			}
			h.adopt(t, func() {
				h.onMonitor(ctx, t, m, func(c *qmp.Client) {
					if left := leftInQEMU(ctx, t, c, then); len(left) > 0 {
						t.Errorf("after %d steps, and %q: left %v (before: %v)", done, want, left, before)
					}
				})
			})
		}
	}
}

// A CD whose image is not there changes nothing.
func TestMediumThatIsNotThere(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := h.machine(t, benchSector)
	m.Drive = true
	one, two := h.medium(t, "one"), h.medium(t, "two")
	two.File.Path += "-gone"
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	for _, has := range []*contract.Medium{nil, one} {
		h.change(t, m.Ref, has, false)
		if err := h.driver.ChangeMedium(ctx, m.Ref, two, true); !errs.Is(err, errs.NotFound) {
			t.Errorf("an image that is not there: %v", err)
		}
		want := ""
		if has != nil {
			want = has.ID
		}
		if got, err := h.driver.Medium(ctx, m.Ref); err != nil || got != want {
			t.Errorf("the drive has %q, want %q; %v", got, want, err)
		}
	}
}

// onMonitor talks with a guest's hypervisor while no driver does.
func (h *harness) onMonitor(ctx context.Context, t *testing.T, m contract.Machine, do func(*qmp.Client)) {
	t.Helper()
	c, err := qmp.Dial(ctx, h.socket(m.VM, "control"), qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	do(c)
}

// leftInQEMU lists nodes and sets of media but those of one, and a tray that is open.
func leftInQEMU(ctx context.Context, t *testing.T, c *qmp.Client, but *contract.Medium) (left []string) {
	t.Helper()
	var nodes []struct {
		Name string `json:"node-name"`
	}
	var sets []struct {
		FDs []struct {
			Opaque string `json:"opaque"`
		} `json:"fds"`
	}
	var blocks []struct {
		Device string `json:"qdev"`
		Open   bool   `json:"tray_open"`
	}
	for command, out := range map[string]any{"query-named-block-nodes": &nodes, "query-fdsets": &sets, "query-block": &blocks} {
		if err := c.Execute(ctx, command, nil, out); err != nil {
			t.Fatal(err)
		}
	}
	ours := func(s string) bool { return but != nil && strings.Contains(s, but.ID[:23]) }
	for _, n := range nodes {
		if strings.HasPrefix(n.Name, "cd-") && !ours(n.Name) {
			left = append(left, n.Name)
		}
	}
	for _, s := range sets {
		for _, f := range s.FDs {
			if strings.HasPrefix(f.Opaque, "medium ") && !ours(f.Opaque) {
				left = append(left, f.Opaque)
			}
		}
	}
	for _, b := range blocks {
		if b.Open {
			left = append(left, b.Device+" is open")
		}
	}
	return left
}

// A memory that was saved by a program that knew no drive goes on without one, whatever
// its machine has by now; the next start from cold brings it.
func TestSavedMemoryKeepsItsLayout(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m, file := h.witness(t)
	h.launch(t, m)
	h.readLog(t, m, "guest ready")
	h.suspend(t, m, file)
	b, err := os.ReadFile(file + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var saved map[string]any
	if err := json.Unmarshal(b, &saved); err != nil || saved["layout"] == nil {
		t.Fatalf("%s, %v", b, err)
	}
	delete(saved, "layout")
	if b, err = json.Marshal(saved); err == nil {
		err = os.WriteFile(file+".json", b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	one := h.medium(t, "one")
	m = next(m, file)
	m.Drive, m.Medium = true, one
	h.launch(t, m)
	h.counts(t, m, 1)
	if err := h.driver.ChangeMedium(ctx, m.Ref, one, false); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a guest of the first layout has a drive: %v", err)
	}
	if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	m.Epoch++
	m.Incoming = ""
	h.launch(t, m)
	if got, err := h.driver.Medium(ctx, m.Ref); err != nil || got != one.ID {
		t.Errorf("after a start from cold: %q, %v", got, err)
	}
}
