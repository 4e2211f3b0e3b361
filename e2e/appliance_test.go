package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

// bootable is a disk whose boot sector counts in the next one how often it ran, and
// says so on the serial port.
func bootable(size int) []byte {
	const at = 0x7c00
	code := []byte{
		0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // segments and stack
		0xbe, 0, 0, 0xb4, 0x42, 0xcd, 0x13, // read the next sector to 7e00
		0xfe, 0x06, 0x00, 0x7e, // count
		0xbe, 0, 0, 0xb8, 0x00, 0x43, 0xcd, 0x13, // write it
		0xa0, 0x00, 0x7e, 0x04, '0', 0xa2, 0, 0, // put the digit into the text
		0xbe, 0, 0, 0xac, 0x84, 0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, // say it
		0xf4, 0xeb, 0xfd, // and rest
	}
	packet := []byte{16, 0, 1, 0, 0x00, 0x7e, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}
	text := "boots: "
	put := func(i, v int) { code[i], code[i+1] = byte(v), byte(v>>8) }
	put(11, at+len(code))
	put(22, at+len(code))
	put(35, at+len(code)+len(packet)+len(text))
	put(38, at+len(code)+len(packet))
	disk := make([]byte, size)
	copy(disk, bytes.Join([][]byte{code, packet, []byte(text + "0\r\n\x00")}, nil))
	disk[510], disk[511] = 0x55, 0xaa
	for i := 1 << 20; i < size; i += 3 << 20 {
		copy(disk[i:], "content of the disk")
	}
	return disk
}

// A machine that has run is written as an appliance and made anew from it: its guest
// goes on where it was, and its disks are, byte for byte, what they were. The original
// and all its images are gone by then.
func TestApplianceThereAndBack(t *testing.T) {
	i := up(t, "--nodes", "1", "--accel", "tcg")
	dir := t.TempDir()
	disk := bootable(8 << 20)
	if err := os.WriteFile(filepath.Join(dir, "boot.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	// packed in the way that is read with the most effort, and that QEMU reads as it is
	packed := filepath.Join(dir, "boot.qcow2")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "-f", "raw", filepath.Join(dir, "boot.raw"), packed).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v %s", err, out)
	}
	i.must("image", "import", "boot", "--disk", packed)
	i.must("vm", "create", "web", "--image", "boot", "--disk", "8MiB", "--disk", "64MiB", "--memory", "64MiB", "--start", "--wait")
	i.logged("web", "boots: 1")
	file := filepath.Join(dir, "web.ova")
	if out, err := i.run("vm", "export", "web", "--ova", file); err == nil || !strings.Contains(out, "stop it first") {
		t.Fatalf("exported while it runs: %v %s", err, out)
	}
	i.must("vm", "stop", "web", "--wait", "--grace", "0")
	i.must("vm", "export", "web", "--ova", file)
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "boot", "--wait")
	if left, err := filepath.Glob(filepath.Join(dir, "web.ova.*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the appliance: %v %v", left, err)
	}
	if got := entries(t, file); strings.Join(got, " ") != "web.ovf web.mf web-disk-0.vmdk web-disk-1.vmdk" {
		t.Errorf("the appliance has %v", got)
	}

	i.must("vm", "import", file, "--name", "again", "--start", "--wait")
	i.logged("again", "boots: 2")
	i.must("vm", "stop", "again", "--wait", "--grace", "0")
	v := get[api.VM](i, "vm", "show", "again")
	if v.Spec.CPUs != 1 || v.Spec.MemoryBytes != 64<<20 || len(v.Spec.Disks) != 2 || v.Spec.Disks[1].SizeBytes != 64<<20 {
		t.Errorf("%+v", v.Spec)
	}
	i.must("vm", "export", "again", "--raw", filepath.Join(dir, "raw"))
	disk[512] = 2
	got, err := os.ReadFile(filepath.Join(dir, "raw", "again-disk-0.raw"))
	if err != nil || !bytes.Equal(got, disk) {
		t.Errorf("the disk is not what it was: %v", err)
	}
	i.must("vm", "delete", "again", "--wait", "--yes")
	for _, name := range []string{"again-disk-0", "again-disk-1"} {
		i.must("image", "delete", name, "--wait")
	}
	if left, err := os.ReadDir(filepath.Join(i.data, "server", "images")); err != nil || len(left) > 0 {
		t.Errorf("left on the server: %v %v", left, err)
	}
}

// entries lists what is in an archive.
func entries(t *testing.T, path string) (names []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
