package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/agent/seed"
)

// waitForDrive waits in the guest: its kernel looks for drives while it goes on.
const waitForDrive = "while [ ! -b /dev/sr0 ]; do sleep 1; done; "

// A real guest finds its seed in the CD drive, by the label that cloud-init looks
// for, with the names and the bytes that were given; what changes at rest is there
// after the next start; its clone finds its own.
func TestSeedReachesTheGuest(t *testing.T) {
	i := up(t, "--accel", "tcg")
	i.importTiny()
	i.must("vm", "create", "web-1", "--image", "tiny", "--memory", "128MiB", "--hostname", "www.example.org",
		"--user-data", "#cloud-config\nruncmd: [id, 'é']\n", "--network-config", "version: 2\n", "--start", "--wait")
	i.logged("web-1", ready)
	i.console("web-1", "SEED-cidata", waitForDrive+"mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd; echo SEED-$(dd if=/dev/sr0 bs=1 skip=32808 count=6 2>/dev/null)")
	out := i.console("web-1", "END-3", "cd /cd; for f in *; do echo \"== $f $(stat -c %a $f)\"; cat $f; done; echo END-$(ls | wc -l)")
	v := i.appears("web-1", "running")
	for _, want := range []string{
		"== meta-data 400\r\ninstance-id: \"" + v.ID + "\"\r\nlocal-hostname: \"www.example.org\"\r\n",
		"== network-config 400\r\nversion: 2\r\n", "== user-data 400\r\n#cloud-config\r\nruncmd: [id, 'é']\r\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the guest reads, without %q:\n%s", want, out)
		}
	}
	// those who read Joliet find the same
	i.console("web-1", "JOLIET-meta-data-network-config-user-data", "cd /; umount /cd; mount -t iso9660 -o ro,norock /dev/sr0 /cd; echo JOLIET-$(ls /cd | tr '\\n' - )")
	i.fails(4, "invalid_state", "vm", "set", "web-1", "--user-data", "#!/bin/sh")
	i.must("vm", "stop", "web-1", "--force", "--wait")
	i.must("vm", "set", "web-1", "--user-data", "#!/bin/second")
	i.must("vm", "clone", "web-1", "web-2", "--wait")
	i.must("vm", "start", "web-1", "web-2", "--wait")
	for _, name := range []string{"web-1", "web-2"} {
		i.logged(name, ready)
		host := map[string]string{"web-1": "www.example.org", "web-2": "web-2"}[name]
		want := "NOW-" + i.appears(name, "running").ID + "-" + host + "-second"
		i.console(name, want, waitForDrive+"mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd; echo NOW-$(sed -n 's/^[a-z-]*: \"\\(.*\\)\"/\\1/p' /cd/meta-data | tr '\\n' -)$(sed 's/.*\\///' /cd/user-data)")
	}
	i.must("vm", "delete", "web-1", "web-2", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}

// A CD of one's own is imported, found in the drive by two guests at once, kept
// while a VM has it, taken out at rest, and gone with its image.
func TestCDOfOnesOwn(t *testing.T) {
	i := up(t, "--accel", "tcg")
	i.importTiny()
	image, err := seed.Image([]seed.File{{Name: "what-is-on-it", Content: []byte("a CD of one's own\n")}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cd.iso")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	i.fails(2, "no ISO 9660 image", "image", "import", "no-cd", "--iso", "cloudinit_test.go")
	i.must("image", "import", "cd", "--iso", file, "--alias", "disc")
	i.fails(2, "one seed", "vm", "create", "web-1", "--image", "tiny", "--seed", "cd", "--hostname", "www")
	i.fails(2, "not a CD", "vm", "create", "web-1", "--image", "tiny", "--seed", "tiny")
	i.fails(2, "is a CD", "vm", "create", "web-1", "--image", "cd")
	i.fails(2, "only disk images", "vm", "create", "web-1", "--image", "tiny", "--disk", ":cd")
	i.must("vm", "create", "web-1", "--image", "tiny", "--memory", "128MiB", "--seed", "disc", "--start", "--wait")
	i.must("vm", "create", "web-2", "--image", "tiny", "--memory", "128MiB", "--hostname", "www", "--wait")
	i.fails(2, "one seed", "vm", "set", "web-2", "--seed", "cd")
	i.must("vm", "set", "web-2", "--no-cloud-init", "--seed", "cd")
	i.must("vm", "start", "web-2", "--wait")
	for _, name := range []string{"web-1", "web-2"} {
		i.logged(name, ready)
		i.console(name, "READ-a CD of one's own-1", waitForDrive+"mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd; echo \"READ-$(cat /cd/*)-$(ls /cd | wc -l)\"")
	}
	i.fails(4, "in_use", "image", "delete", "cd")
	i.must("vm", "delete", "web-1", "--wait", "--yes")
	i.fails(4, "in_use", "image", "delete", "cd")
	i.fails(4, "invalid_state", "vm", "set", "web-2", "--seed", "")
	i.must("vm", "stop", "web-2", "--force", "--wait")
	i.must("vm", "set", "web-2", "--seed", "")
	i.must("image", "delete", "cd", "--wait")
	i.must("vm", "start", "web-2", "--wait")
	i.logged("web-2", ready)
	i.console("web-2", "DRIVES-1", "echo DRIVES-$(ls /sys/block | grep -c sr)")
	i.must("vm", "delete", "web-2", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}
