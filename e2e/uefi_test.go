package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
)

// A real guest that starts by UEFI, through every floor: made over the command line, with
// secure boot and without, it says itself which; what its firmware keeps is on its node
// while it is there, outlives a suspend and goes with it. Its file systems are not frozen,
// as no agent is in it, and its VM says so.
func TestUEFIGuest(t *testing.T) {
	i := up(t, "--accel", "tcg")
	kernel, _ := hypertest.GuestImage(t)
	disk := filepath.Join(filepath.Dir(kernel), "..", "uefi-guest", "esp.raw")
	if _, err := os.Stat(disk); err != nil {
		t.Fatalf("the UEFI guest is missing: run scripts/uefi-guest: %v", err)
	}
	i.must("image", "import", "esp", "--disk", disk)
	kept := func() []string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(i.data, "nodes", "*", "firmware", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	for name, c := range map[string]struct{ firmware, says string }{
		"safe": {"uefi-secure-boot", "Secure boot enabled"},
		"free": {"uefi", "Secure boot disabled"},
	} {
		i.must("vm", "create", name, "--image", "esp", "--cpus", "1", "--memory", "256MiB", "--firmware", c.firmware, "--start", "--wait")
		i.appears(name, "running")
		i.logged(name, ready)
		i.console(name, c.says, "dmesg | grep secureboot:")
		if files := kept(); len(files) != 1 || filepath.Ext(files[0]) != "."+c.firmware {
			t.Errorf("firmware keeps %q", files)
		}
		i.fails(4, "no agent in the guest", "vm", "freeze", name)
		i.must("vm", "suspend", name, "--wait")
		i.appears(name, "suspended")
		i.must("vm", "resume", name, "--wait")
		i.appears(name, "running")
		i.console(name, "STILL-42", "echo STILL-$((6*7))")
		i.must("vm", "delete", name, "--wait", "--yes")
		if files := kept(); len(files) != 0 {
			t.Errorf("firmware of a VM that is gone left %q", files)
		}
	}
	i.must("image", "delete", "esp", "--wait")
	i.nothingLeft()
}
