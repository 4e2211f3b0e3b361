package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// A real guest with a disk in a folder that three nodes have, and one of its node's own,
// moves while it runs, goes on with what it has written, and moves back stopped. What is in
// the folder is not copied, and nobody else can open it meanwhile. A disk in the folder is
// made of an image, whole; and all of it goes with the machine.
func TestRealGuestInAPool(t *testing.T) {
	folder := t.TempDir()
	i := up(t, "--accel", "tcg", "--nodes", "3", "--pool", "shared="+folder)
	i.importTiny()
	content := filepath.Join(t.TempDir(), "data.raw")
	write(t, content, "from-the-image"+strings.Repeat("\x00", 1<<20-14))
	i.must("image", "import", "data", "--disk", content)
	if out := i.must("pool", "list"); !strings.Contains(out, "3 of 3") {
		t.Errorf("pools: %s", out)
	}
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB@shared", "--disk", "32MiB", "--wait")
	i.must("vm", "disk", "add", "web", "--image", "data", "--pool", "shared", "--wait")
	i.must("vm", "start", "web", "--wait")
	i.logged("web", ready)
	i.console("web", "WROTE-42-from-the-image", "echo in-the-pool-1 > /dev/vda; echo of-the-node-1 > /dev/vdb; sync; echo WROTE-$((6*7))-$(head -c 14 /dev/vdc)")
	file := i.inPool(folder, "web")
	was, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	first := i.nodeOf("web")
	i.must("vm", "migrate", "web", "--wait")
	second := i.nodeOf("web")
	if second == first {
		t.Fatalf("it is on %s still", first)
	}
	if m := i.lastMigration("web"); m.Type != "live" || m.Progress == nil || m.Progress.DisksMoved > 40<<20 {
		t.Errorf("the record: %+v %+v", m, m.Progress)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-f", "raw", "-O", "raw", file, filepath.Join(t.TempDir(), "copy")).CombinedOutput(); err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("a second one opened the disk: %v %s", err, out)
	}
	i.console("web", "THERE-in-the-pool-1-of-the-node-1", "a=$(head -c 13 /dev/vda); b=$(head -c 13 /dev/vdb); echo in-the-pool-2 > /dev/vda; sync; echo THERE-$a-$b")
	if is, err := os.Stat(file); err != nil || !os.SameFile(was, is) || !beginsWith(t, file, "in-the-pool-2") {
		t.Errorf("the file in the folder is another one, or not what was written: %v", err)
	}
	i.must("vm", "stop", "web", "--force", "--wait")
	if out := i.must("vm", "migrate", "web", "--node", first, "--plan"); strings.Count(out, "stays, ") != 2 || strings.Count(out, "moves, ") != 1 {
		t.Errorf("the plan: %s", out)
	}
	i.must("vm", "migrate", "web", "--node", first, "--wait")
	if m := i.lastMigration("web"); m.Type != "cold" || m.BytesMoved > 33<<20 {
		t.Errorf("the record: %+v", m)
	}
	i.must("vm", "start", "web", "--wait")
	i.logged("web", ready)
	i.console("web", "BACK-in-the-pool-2-of-the-node-1", "echo BACK-$(head -c 13 /dev/vda)-$(head -c 13 /dev/vdb)")
	if is, err := os.Stat(file); err != nil || !os.SameFile(was, is) {
		t.Errorf("the file in the folder is another one: %v", err)
	}
	i.fails(4, "has", "pool", "delete", "shared")
	i.must("vm", "delete", "web", "--wait", "--yes")
	for _, d := range []string{"volumes", "claims"} {
		if left, err := os.ReadDir(filepath.Join(folder, d)); err != nil || len(left) > 0 {
			t.Errorf("left in the folder: %v %v", left, err)
		}
	}
	i.must("image", "delete", "tiny", "--wait")
	i.must("image", "delete", "data", "--wait")
	i.nothingLeft()
}

// inPool is the file of a VM's first disk.
func (i *instance) inPool(folder, vm string) string {
	i.t.Helper()
	v, err := i.client().VMs.Get(i.t.Context(), vm)
	if err != nil || v.Spec.Disks[0].Pool != "shared" {
		i.t.Fatalf("%+v %v", v.Spec.Disks, err)
	}
	return filepath.Join(folder, "volumes", v.Spec.Disks[0].ID+".img")
}

func beginsWith(t *testing.T, file, text string) bool {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, len(text))
	if _, err := f.Read(b); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(b, []byte(text))
}

// lastMigration is the newest record of a VM's.
func (i *instance) lastMigration(vm string) api.Migration {
	i.t.Helper()
	page, err := i.client().Migrations.List(i.t.Context(), client.ListOptions{Filter: map[string]string{"vm": vm}})
	if err != nil || len(page.Items) == 0 {
		i.t.Fatalf("no record: %v", err)
	}
	return page.Items[0]
}
