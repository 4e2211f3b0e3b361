package e2e

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
)

// A real guest on a microvm, made over the command line: it boots, has its disk and its
// network, has no screen, and obeys a graceful stop.
func TestMicrovmGuest(t *testing.T) {
	i := up(t, "--accel", "tcg")
	kernel, initrd := hypertest.GuestImage(t)
	i.must("image", "import", "micro", "--kernel", kernel, "--initrd", initrd, "--cmdline", "console=ttyS0 panic=-1 tsc_early_khz=1000000")
	i.must("vm", "create", "web", "--image", "micro", "--machine", "microvm", "--memory", "128MiB", "--disk", "32MiB", "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "HAS-65536", "echo HAS-$(cat /sys/block/vda/size)")
	if shown := i.must("vm", "show", "web"); !strings.Contains(shown, "microvm") {
		t.Errorf("it is shown as\n%s", shown)
	}
	if out, err := i.run("vm", "screenshot", "web", "--file", t.TempDir()+"/web.png"); err == nil || !strings.Contains(out, "serial console") {
		t.Errorf("a picture of what has no screen: %v\n%s", err, out)
	}
	i.must("vm", "stop", "web", "--wait")
	i.appears("web", "stopped")
	i.must("vm", "delete", "web", "--wait")
}
