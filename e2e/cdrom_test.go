package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/agent/seed"
)

// CDs come into and out of the drive of a guest that runs: the guest sees each, keeps one
// that it has mounted until it is forced, and finds what it had after a suspend and after
// a restart of its agent. An image in a drive is not deleted.
func TestCDsUnderARunningGuest(t *testing.T) {
	i := up(t, "--accel", "tcg")
	i.importTiny()
	for _, name := range []string{"one", "two"} {
		image, err := seed.Image([]seed.File{{Name: "which", Content: []byte(name + "\n")}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name+".iso")
		if err := os.WriteFile(file, image, 0o600); err != nil {
			t.Fatal(err)
		}
		i.must("image", "import", name, "--iso", file)
	}
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--start", "--wait")
	i.logged("web", ready)
	const look = "mkdir -p /cd; mount -t iso9660 -o ro /dev/sr0 /cd 2>/dev/null; echo SEEN-$(cat /cd/which || echo none)-; umount /cd 2>/dev/null"
	i.console("web", "SEEN-none-", waitForDrive+look)
	i.fails(2, "not a CD", "vm", "cdrom", "attach", "web", "tiny")
	i.must("vm", "cdrom", "attach", "web", "one", "--wait")
	i.console("web", "SEEN-one-", look)
	i.fails(4, "eject that first", "vm", "cdrom", "attach", "web", "two")
	i.fails(4, "in_use", "image", "delete", "one")
	i.must("vm", "cdrom", "eject", "web", "--wait")
	i.console("web", "SEEN-none-", look)
	i.must("vm", "cdrom", "attach", "web", "two", "--wait")
	i.console("web", "HELD-two-", "mount -t iso9660 -o ro /dev/sr0 /cd; echo HELD-$(cat /cd/which)-")
	i.fails(7, "unmount it", "vm", "cdrom", "eject", "web", "--wait")
	i.must("vm", "suspend", "web", "--wait")
	i.fails(4, "suspended", "vm", "cdrom", "eject", "web")
	i.must("vm", "resume", "web", "--wait")
	i.console("web", "STILL-two-", "echo STILL-$(cat /cd/which)-")
	i.must("vm", "cdrom", "eject", "web", "--force", "--wait")
	i.console("web", "SEEN-none-", "umount /cd; "+look)
	i.must("vm", "cdrom", "attach", "web", "one", "--wait")
	i.must("vm", "stop", "web", "--force", "--wait")
	i.must("vm", "start", "web", "--wait")
	i.logged("web", ready)
	i.console("web", "SEEN-one-", waitForDrive+look)
	i.must("vm", "cdrom", "eject", "web", "--wait")
	i.must("vm", "delete", "web", "--wait", "--yes")
	for _, name := range []string{"one", "two", "tiny"} {
		i.must("image", "delete", name, "--wait")
	}
	i.nothingLeft()
}
