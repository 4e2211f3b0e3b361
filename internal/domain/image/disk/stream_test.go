package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// A disk that is written as VMDK is, to QEMU and to ourselves, the disk it was.
func TestWriteVMDK(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int64{"small": 512, "odd": 3*unit.MiB + 512, "two-tables": 70 * unit.MiB} {
		content := make([]byte, size)
		for i := int64(0); i < size; i += 5 * unit.MiB {
			copy(content[i:], words(100_000))
		}
		copy(content[size-512:], words(512))
		raw, path := filepath.Join(dir, name+".raw"), filepath.Join(dir, name+".vmdk")
		if err := os.WriteFile(raw, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteVMDK(f, NewRaw(bytes.NewReader(content), size), name+".vmdk"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "compare", "-q", "-s", "-f", "vmdk", "-F", "vmdk", path, path)
		qemuImg(t, "compare", "-q", "-f", "raw", "-F", "vmdk", raw, path)
		same(t, path, VMDK)
	}
}
