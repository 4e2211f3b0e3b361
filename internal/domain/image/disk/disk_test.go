package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// convert reads a file as a user's import does, into memory.
func convert(b []byte, f Format) (*memory, error) {
	d, err := Open(bytes.NewReader(b), int64(len(b)), f)
	if err != nil {
		return nil, err
	}
	m := &memory{}
	_, err = d.Convert(m, nil)
	return m, err
}

// memory is a file that grows.
type memory struct{ b []byte }

// WriteAt implements io.WriterAt.
func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if need := int(at) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[at:], p), nil
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v %s", strings.Join(args, " "), err, out)
	}
}

// virtual is a disk's size as QEMU has it.
func virtual(t *testing.T, path, format string) int64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", "info", "--output=json", "-f", format, path).Output()
	var info struct {
		Virtual int64 `json:"virtual-size"`
	}
	if err = errors.Join(err, json.Unmarshal(out, &info)); err != nil {
		t.Fatal(err)
	}
	return info.Virtual
}

// same converts a file with qemu-img and by ourselves, and compares every byte of
// the disks.
func same(t *testing.T, path string, f Format) {
	t.Helper()
	src, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(src, info.Size(), f)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	out, err := os.Create(path + ".ours")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	n, err := d.Convert(out, nil)
	if info, look := out.Stat(); err != nil || look != nil || info.Size() != n {
		t.Errorf("%s: converted %d: %v %v", path, n, err, look)
		return
	}
	name := map[Format]string{VHD: "vpc"}[f]
	if name == "" {
		name = string(f)
	}
	qemuImg(t, "check", "-q", "-f", "qcow2", path+".ours")
	if theirs := virtual(t, path, name); theirs != d.Bytes {
		t.Errorf("%s has %d bytes, to QEMU %d", path, d.Bytes, theirs)
	}
	qemuImg(t, "compare", "-q", "-f", name, "-F", "qcow2", path, path+".ours")
}

// What qemu-img writes in each format becomes, byte for byte, the disk that qemu-img
// reads from it.
func TestRealDisks(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	content := make([]byte, 24*unit.MiB)
	for i := range 64 { // patches of all sizes, some of them over borders
		at := i * 379 * 1024
		n := copy(content[at:], words(i*i*96))
		content[at+n/2] = byte(i)
	}
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		format Format
		name   string
		opts   string
	}{
		{VMDK, "vmdk", "subformat=monolithicSparse"},
		{VMDK, "vmdk", "subformat=monolithicSparse,zeroed_grain=on"},
		{VMDK, "vmdk", "subformat=streamOptimized"},
		{VHD, "vpc", "subformat=fixed,force_size=on"},
		{VHD, "vpc", "subformat=dynamic,force_size=on"},
		{VHD, "vpc", "subformat=dynamic"},
		{VHDX, "vhdx", "subformat=dynamic"},
		{VHDX, "vhdx", "subformat=fixed"},
		{VHDX, "vhdx", "subformat=dynamic,block_size=1M"},
		{VHDX, "vhdx", "block_size=256M"},
		{VDI, "vdi", "static=off"},
		{VDI, "vdi", "static=on"},
	} {
		t.Run(c.name+","+c.opts, func(t *testing.T) {
			path := filepath.Join(dir, fmt.Sprint(i))
			qemuImg(t, "convert", "-f", "raw", "-O", c.name, "-o", c.opts, raw, path)
			same(t, path, c.format)
			if !strings.Contains(c.opts, "static=on") && !strings.Contains(c.opts, "fixed") {
				large := filepath.Join(dir, fmt.Sprint("large", i))
				qemuImg(t, "create", "-q", "-f", c.name, "-o", c.opts, large, "5G")
				same(t, large, c.format)
			}
		})
	}
}

// The good files that crafted ones are made from are good to QEMU as well.
func TestGoodFiles(t *testing.T) {
	dir := t.TempDir()
	for name, g := range good() {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, g.bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		if g.format == VHD && name == "dynamic" {
			continue // QEMU takes blocks of 2 MiB alone
		}
		same(t, path, g.format)
		if f := Sniff(g.bytes[:512], g.bytes[len(g.bytes)-512:]); f != g.format {
			t.Errorf("%s is taken for %q", name, f)
		}
	}
	if _, err := convert(say("RW 64", "RDONLY 64")(goodVMDK()), VMDK); err != nil {
		t.Errorf("an extent that is marked as read only: %v", err)
	}
	m, err := convert(goodDynamic(), VHD)
	if err != nil || !bytes.Contains(m.b, words(4096)) {
		t.Errorf("a dynamic VHD: %v", err)
	}
}

// Every crafted file is refused for what it is, when it is opened or read.
func TestCraftedDisksAreRefused(t *testing.T) {
	n := 0
	for of, g := range good() {
		for name, c := range crafted()[of] {
			n++
			b := c(bytes.Clone(g.bytes))
			if _, err := convert(b, g.format); !errs.Is(err, errs.InvalidImage) {
				t.Errorf("%s, %s: %v", of, name, err)
			}
		}
		for _, at := range []int{0, 1, 63, 64, 100, 511, 512, 513, 1023, 1024, 1535, len(g.bytes) / 2, len(g.bytes) - 513, len(g.bytes) - 1} {
			if at >= len(g.bytes) || g.format == VHDX && at > vhdxBlock+int(unit.MiB) {
				continue // only the room for a log would be cut
			}
			n++
			if _, err := convert(g.bytes[:at], g.format); !errs.Is(err, errs.InvalidImage) {
				t.Errorf("%s, cut at %d: %v", of, at, err)
			}
		}
	}
	if n < 150 {
		t.Errorf("only %d files", n)
	}
	if _, err := Open(bytes.NewReader(nil), 0, "qed"); !errs.Is(err, errs.InvalidImage) {
		t.Errorf("another format: %v", err)
	}
}

type broken struct{}

// ReadAt implements io.ReaderAt.
func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("I/O error") }

// A file that cannot be read is the host's failure, not the image's; a caller that
// stops is obeyed.
func TestConvertEnds(t *testing.T) {
	for _, f := range []Format{VMDK, VHD, VHDX, VDI} {
		if _, err := Open(broken{}, 8*unit.MiB, f); !errs.Is(err, errs.HostFailure) {
			t.Errorf("%s: %v", f, err)
		}
	}
	d, err := Open(bytes.NewReader(goodVDI()), int64(len(goodVDI())), VDI)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if _, err := d.Convert(&memory{}, func(int64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// The same disk gives the same bytes, whichever format it comes in; a writer takes
// nothing out of order.
func TestWriter(t *testing.T) {
	size := 700 * unit.MiB // two tables
	var files [2]memory
	for i := range files {
		w := NewWriter(&files[i], size)
		step := []int{4096, 65536 + 512}[i]
		for _, at := range []int64{0, 65536 * 3, 600 * unit.MiB} {
			for p := words(65536 * 2); len(p) > 0; {
				n := min(step, len(p))
				if err := w.Tell(at, p[:n]); err != nil {
					t.Fatal(err)
				}
				at, p = at+int64(n), p[n:]
			}
		}
		if err := w.Tell(4096, words(512)); !errs.Is(err, errs.InvalidImage) {
			t.Errorf("back: %v", err)
		}
		if err := w.Tell(size, words(512)); !errs.Is(err, errs.InvalidImage) {
			t.Errorf("behind the end: %v", err)
		}
		if n, err := w.Close(); err != nil || n != int64(len(files[i].b)) {
			t.Fatalf("%d of %d: %v", n, len(files[i].b), err)
		}
	}
	if !bytes.Equal(files[0].b, files[1].b) {
		t.Error("the same disk gave other bytes")
	}
	small := NewWriter(&memory{}, size)
	small.limit = 3 * cluster
	err := small.Tell(0, words(4*cluster))
	if _, closed := small.Close(); !errs.Is(errors.Join(err, closed), errs.TooLarge) {
		t.Errorf("more than a file may have: %v %v", err, closed)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, files[0].b, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "check", "-q", "-f", "qcow2", path)
}

// fuzz reads whatever comes: nothing panics, nothing outgrows the file, and what is
// refused is refused as an image.
func fuzz(f *testing.F, format Format) {
	f.Helper()
	for of, g := range good() {
		if g.format != format || format == VHDX {
			continue
		}
		f.Add(g.bytes)
		for _, c := range crafted()[of] {
			f.Add(c(bytes.Clone(g.bytes)))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Open(bytes.NewReader(b), int64(len(b)), format)
		if err == nil {
			var told int64
			err = d.Walk(func(at int64, p []byte) error {
				if at < 0 || at+int64(len(p)) > d.Bytes {
					t.Errorf("%d bytes at %d of %d", len(p), at, d.Bytes)
				}
				if told += int64(len(p)); told > 64*unit.MiB {
					return io.EOF // enough of it
				}
				return nil
			})
			if d.Format != VMDK && told > int64(len(b)) {
				t.Errorf("%d bytes came of %d", told, len(b))
			}
		}
		if err != nil && !errs.Is(err, errs.InvalidImage) && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

func FuzzVMDK(f *testing.F) { fuzz(f, VMDK) }

func FuzzVHD(f *testing.F) { fuzz(f, VHD) }

func FuzzVDI(f *testing.F) { fuzz(f, VDI) }

// FuzzVHDX fuzzes what a VHDX says, put into a file whose sums are right: nothing
// else gets past them.
func FuzzVHDX(f *testing.F) {
	base := goodVHDX()
	f.Add(base[vhdxRegions1:vhdxRegions1+96], base[vhdxMeta:vhdxMeta+256], base[vhdxMeta+65536:vhdxMeta+65536+64], base[vhdxTable:vhdxTable+64])
	f.Add([]byte("regi"), []byte("metadata"), []byte{}, bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, regions, items, values, table []byte) {
		b := bytes.Clone(base)
		for at, p := range map[int][]byte{int(vhdxRegions1): regions, vhdxMeta: items, vhdxMeta + 65536: values, vhdxTable: table} {
			copy(b[at:at+65536], p)
		}
		if _, err := convert(all(headers, tables)(b), VHDX); err != nil && !errs.Is(err, errs.InvalidImage) {
			t.Error(err)
		}
	})
}

// BenchmarkConvert converts a disk of 256 MiB without zeros, from memory to memory.
func BenchmarkConvert(b *testing.B) {
	size := 256 * unit.MiB
	raw := append(words(int(size)), footer(uint64(size), vhdFixed, 1<<64-1)...)
	out := &memory{b: make([]byte, size+16*unit.MiB)}
	b.SetBytes(size)
	for b.Loop() {
		d, err := Open(bytes.NewReader(raw), int64(len(raw)), VHD)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Convert(out, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func qemuIO(t *testing.T, path, do string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "qcow2", "-c", do, path).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io %s: %v %s", do, err, out)
	}
}
