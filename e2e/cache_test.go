package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

// A byte of an image file flips on a node: the VM that stands on it is not
// started on the damaged file, but on a good one that takes its place.
func TestDamagedImageIsFetchedAgain(t *testing.T) {
	i := up(t, "--nodes", "1", "--accel", "tcg")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--start", "--wait")
	i.must("vm", "stop", "web", "--wait", "--grace", "0")
	img := get[api.Image](i, "image", "show", "tiny")
	var sum string
	for _, f := range img.Status.Files {
		if f.Role == "initrd" {
			sum = f.SHA256
		}
	}
	path := filepath.Join(i.data, "nodes", "node-1", "images", sum)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	i.must("vm", "start", "web", "--wait")
	i.appears("web", "running")
	i.logged("web", ready)
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != sum {
		t.Error("the node still has the damaged file")
	}
	if out := i.must("node", "show", "node-1"); !strings.Contains(out, "image cache:") {
		t.Errorf("%s", out)
	}
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
}

// A node takes an image file from another node that has it: here it is all that
// is left, since the server's copy is away.
func TestImageFromAnotherNode(t *testing.T) {
	i := up(t, "--nodes", "2", "--accel", "tcg")
	i.importTiny()
	create := []string{"vm", "create", "a", "--image", "tiny", "--memory", "128MiB", "--wait", "--node"}
	i.must(append(create, "node-1")...)
	folder := filepath.Join(i.data, "server", "images")
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	create[2] = "b"
	i.must(append(create, "node-2")...)
	img := get[api.Image](i, "image", "show", "tiny")
	for _, f := range img.Status.Files {
		b, err := os.ReadFile(filepath.Join(i.data, "nodes", "node-2", "images", f.SHA256))
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != f.SHA256 {
			t.Errorf("the %s is another file", f.Role)
		}
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	for _, vm := range []string{"a", "b"} {
		i.must("vm", "delete", vm, "--wait", "--yes")
	}
	i.must("image", "delete", "tiny", "--wait")
}
