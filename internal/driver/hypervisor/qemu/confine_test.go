package qemu_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
)

// status reads fields of /proc/PID/status.
func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		out[k] = strings.Join(strings.Fields(v), " ")
	}
	return out
}

func owner(t *testing.T, path string) (uid int, mode os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid), info.Mode().Perm()
}

// The real QEMU, while a guest runs: no privileges, a filter, a user, a group and
// a cgroup of its own, and files that no other guest can open.
func TestConfinement(t *testing.T) {
	h := newHarness(t, nil)
	one, two := h.Machine(t, hypertest.Polite), h.Machine(t, hypertest.Polite)
	users := map[int]bool{}
	for _, m := range []contract.Machine{one, two} {
		s := h.launch(t, m)
		p := procStatus(t, s.PID)
		for field, want := range map[string]string{
			"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
		} {
			if p[field] != want {
				t.Errorf("%s of QEMU is %q, want %q", field, p[field], want)
			}
		}
		if os.Getuid() != 0 {
			continue
		}
		uid := h.checkUser(t, m, p)
		if users[uid] {
			t.Errorf("two guests share uid %d", uid)
		}
		users[uid] = true
		h.checkCgroup(t, m, s.PID)
	}
}

func (h *harness) checkUser(t *testing.T, m contract.Machine, p map[string]string) int {
	t.Helper()
	var uid int
	if _, err := fmt.Sscan(p["Uid"], &uid); err != nil || uid < 1<<30 {
		t.Fatalf("QEMU runs as %q", p["Uid"])
	}
	if want := fmt.Sprintf("%d %d %d %d", uid, uid, uid, uid); p["Uid"] != want || p["Gid"] != want || p["Groups"] != "" {
		t.Errorf("QEMU runs as %q, %q, groups %q", p["Uid"], p["Gid"], p["Groups"])
	}
	// the disk is handed over open: nobody but the agent can open it
	for path, want := range map[string]int{
		m.Disks[0].File.Path: os.Getuid(), filepath.Join(h.opt.RAMDir, h.opt.NodeShort, m.VM.String()): uid,
	} {
		if got, mode := owner(t, path); got != want || mode != 0o600 {
			t.Errorf("%s belongs to %d, mode %o; want %d, 600", filepath.Base(path), got, mode, want)
		}
	}
	return uid
}

func (h *harness) checkCgroup(t *testing.T, m contract.Machine, pid int) {
	t.Helper()
	if !slices.ContainsFunc(h.driver.Capabilities().Confinement, func(s string) bool { return strings.HasPrefix(s, "cgroup") }) {
		t.Fatalf("root has no cgroup here: %q", h.driver.Capabilities().Confinement)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var rec struct{ Group string }
	record, err := os.ReadFile(filepath.Join(h.opt.DataDir, "vms", m.VM.String(), "machine.json"))
	if err != nil || json.Unmarshal(record, &rec) != nil || rec.Group == "" {
		t.Fatalf("the record %s names no cgroup: %v", record, err)
	}
	want := "/novacron-" + h.opt.NodeShort + "/" + rec.Group + "/guest"
	if !strings.Contains(string(b), want) {
		t.Errorf("QEMU is in\n%swant %s", b, want)
	}
}

func TestConfinementIsTold(t *testing.T) {
	h := newHarness(t, nil)
	got := h.driver.Capabilities().Confinement
	if !slices.Contains(got, "seccomp") || slices.Contains(got, "uid") != (os.Getuid() == 0) {
		t.Fatalf("uid %d is told %q", os.Getuid(), got)
	}
	for _, missing := range h.driver.Capabilities().Unconfined {
		if why := strings.SplitN(missing, ": ", 2); len(why) != 2 || why[1] == "" {
			t.Errorf("%q is told without a reason", missing)
		}
	}
}
