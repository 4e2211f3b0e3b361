package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// good is a well-formed qcow2 header of version 3 with its tables, of a disk of
// 1 GiB with clusters of 64 KiB.
func good() []byte {
	b := make([]byte, 5*65536)
	copy(b, "QFI\xfb")
	be := binary.BigEndian
	be.PutUint32(b[qVersion:], 3)
	be.PutUint32(b[qClusterBits:], 16)
	be.PutUint64(b[qSize:], uint64(unit.GiB))
	be.PutUint32(b[qL1Size:], 2)
	be.PutUint64(b[qL1Offset:], 3*65536)
	be.PutUint64(b[qRefOffset:], 65536)
	be.PutUint32(b[qRefClusters:], 1)
	be.PutUint32(b[qRefOrder:], 4)
	be.PutUint32(b[qHeaderLength:], 112)
	return b
}

func put32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b }
}

func put64(at int, v uint64) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], v); return b }
}

// ext puts an extension behind the header.
func ext(kind, length uint32) func([]byte) []byte {
	return func(b []byte) []byte { return put32(116, length)(put32(112, kind)(b)) }
}

func all(fs ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, f := range fs {
			b = f(b)
		}
		return b
	}
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

// crafted are images that must be refused, made from a good one.
var crafted = map[string]func([]byte) []byte{
	"v1":                    put32(qVersion, 1),
	"v4":                    put32(qVersion, 4),
	"backing file":          put64(qBackingOffset, 200),
	"backing far away":      put64(qBackingOffset, 1<<63),
	"v2 backing file":       all(put32(qVersion, 2), put64(qBackingOffset, 200)),
	"backing format":        ext(0xE2792ACA, 5),
	"v2 backing format":     all(put32(qVersion, 2), put32(72, 0xE2792ACA), put32(76, 5)),
	"data file bit":         put64(qIncompatible, incompatData),
	"data file name":        ext(0x44415441, 8),
	"v2 data file name":     all(put32(qVersion, 2), put32(72, 0x44415441), put32(76, 8)),
	"AES":                   put32(qCrypt, 1),
	"LUKS":                  put32(qCrypt, 2),
	"LUKS header":           ext(0x0537be77, 16),
	"clusters of 256 bytes": put32(qClusterBits, 8),
	"clusters of 4 MiB":     put32(qClusterBits, 22),
	"clusters of 2^0":       put32(qClusterBits, 0),
	"clusters of 2^64":      put32(qClusterBits, 64),
	"clusters of 2^max":     put32(qClusterBits, 1<<32-1),
	"dirty":                 put64(qIncompatible, incompatDirty),
	"corrupt":               put64(qIncompatible, incompatCorrupt),
	"unknown bit 5":         put64(qIncompatible, 1<<5),
	"unknown bit 63":        put64(qIncompatible, 1<<63),
	"size 0":                put64(qSize, 0),
	"size 511":              put64(qSize, 511),
	"size odd":              put64(qSize, uint64(unit.GiB)+1),
	"size over 64 TiB":      put64(qSize, uint64(64*unit.TiB)+512),
	"size max":              put64(qSize, 1<<64-512),
	"L1 outside":            put64(qL1Offset, 5*65536),
	"L1 runs out":           put32(qL1Size, 16385+8192),
	"L1 odd":                put64(qL1Offset, 3*65536+8),
	"L1 at 0":               put64(qL1Offset, 0),
	"L1 wraps":              put64(qL1Offset, 1<<64-65536),
	"L1 huge":               put32(qL1Size, 1<<32-1),
	"L1 small":              put32(qL1Size, 1),
	"L1 none":               put32(qL1Size, 0),
	"L1 small for L2":       put64(qIncompatible, incompatL2),
	"L2 outside":            put64(3*65536, 5*65536|l1Copied),
	"L2 odd":                put64(3*65536, 65536+512),
	"L2 far away":           put64(3*65536, l1Place),
	"L2 with other bits":    put64(3*65536, 4*65536|1<<60),
	"L2 twice":              all(put64(3*65536, 4*65536|l1Copied), put64(3*65536+8, 4*65536)),
	"refcounts outside":     put64(qRefOffset, 6*65536),
	"refcounts odd":         put64(qRefOffset, 512),
	"refcounts at 0":        put64(qRefOffset, 0),
	"refcounts wrap":        put64(qRefOffset, 1<<64-65536),
	"refcounts none":        put32(qRefClusters, 0),
	"refcounts huge":        put32(qRefClusters, 1<<32-1),
	"refcounts wide":        put32(qRefOrder, 7),
	"snapshots":             put32(qSnapshots, 1),
	"snapshots many":        put32(qSnapshots, 1<<32-1),
	"header short":          put32(qHeaderLength, 72),
	"header odd":            put32(qHeaderLength, 113),
	"header long":           put32(qHeaderLength, 8192),
	"header max":            put32(qHeaderLength, 1<<32-8),
	"header over cluster":   all(put32(qClusterBits, 9), put32(qHeaderLength, 1024)),
	"compression unnamed":   put32(qCompression, 1<<24),
	"compression unknown":   all(put64(qIncompatible, incompatZstd), put32(qCompression, 2<<24)),
	"compression missing":   put64(qIncompatible, incompatZstd),
	"compression cut off":   all(put64(qIncompatible, incompatZstd), put32(qHeaderLength, 104)),
	"extension overruns":    ext(0x12345678, 1<<31),
	"extension max":         ext(0x12345678, 1<<32-1),
	"extension to the end":  ext(0x12345678, 65536-120),
	"extensions for ever": func(b []byte) []byte {
		for i := 112; i < 65536; i += 8 {
			put32(i, 0x12345678)(b)
		}
		return b
	},
	"extensions in a small cluster": all(put32(qClusterBits, 9), func(b []byte) []byte {
		for i := 112; i < 512; i += 8 {
			put32(i, 0x12345678)(b)
		}
		return b
	}),
}

// others are files that are no qcow2.
func others() map[string][]byte {
	sector := func(at int, magic string) []byte {
		b := make([]byte, 4096)
		copy(b[at:], magic)
		return b
	}
	var ova, packed bytes.Buffer
	w := tar.NewWriter(&ova)
	_ = w.WriteHeader(&tar.Header{Name: "disk.ovf", Size: 4, Mode: 0o600})
	_, _ = w.Write([]byte("data"))
	_ = w.Close()
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 4096))
	_ = z.Close()
	fixed := make([]byte, 4096+512)
	copy(fixed[4096:], "conectix")
	return map[string][]byte{
		"empty": {}, "one byte": {0}, "raw odd": make([]byte, 513), "raw short": make([]byte, 511),
		"VMDK": sector(0, "KDMV"), "VMDK of ESX": sector(0, "COWD"), "VMDK descriptor": sector(0, "# Disk DescriptorFile\nversion=1\n"),
		"VHD dynamic": sector(0, "conectix"), "VHD fixed": fixed, "VHDX": sector(0, "vhdxfile"),
		"VDI": sector(0x40, "\x7f\x10\xda\xbe"), "QED": sector(0, "QED\x00"), "Parallels": sector(0, "WithoutFreeSpace"),
		"gzip": packed.Bytes(), "xz": sector(0, "\xfd7zXZ\x00"), "zstd": sector(0, "\x28\xb5\x2f\xfd"), "bzip2": sector(0, "BZh9"), "OVA": ova.Bytes(),
	}
}

// counting counts what is read.
type counting struct {
	io.ReaderAt
	bytes, calls int
}

// ReadAt implements io.ReaderAt.
func (c *counting) ReadAt(p []byte, at int64) (int, error) {
	c.calls++
	n, err := c.ReaderAt.ReadAt(p, at)
	c.bytes += n
	return n, err
}

// most that is ever read of a crafted file: of a VHDX two headers, two tables of
// regions, and metadata.
const mostRead = 4096 + 512 + 8*maxExtensions + 2*4096 + 3*65536 + 64

func look(t *testing.T, b []byte, role image.Role) (Result, error) {
	t.Helper()
	r := &counting{ReaderAt: bytes.NewReader(b)}
	out, err := File(r, int64(len(b)), role)
	if r.bytes > mostRead || r.calls > maxExtensions+2 {
		t.Errorf("read %d bytes in %d calls", r.bytes, r.calls)
	}
	return out, err
}

func TestCraftedDisksAreRefused(t *testing.T) {
	if out, err := look(t, good(), image.RoleDisk); err != nil || out != (Result{"qcow2", unit.GiB}) {
		t.Fatalf("the good one: %+v %v", out, err)
	}
	files := others()
	for name, f := range crafted {
		files[name] = f(good())
	}
	for _, n := range []int{4, 8, 20, 24, 32, 36, 40, 48, 56, 60, 64, 71, 72, 79, 80, 88, 96, 100, 103, 104, 111, 112, 119} {
		files[fmt.Sprintf("cut at %d", n)] = cut(n)(good())
		files[fmt.Sprintf("v2 cut at %d", n)] = all(put32(qVersion, 2), cut(n))(good())
	}
	if len(files) < 100 {
		t.Errorf("only %d files", len(files))
	}
	for name, b := range files {
		if out, err := look(t, b, image.RoleDisk); !errs.Is(err, errs.InvalidImage) && !(name == "OVA" && errs.Is(err, errs.ArchiveUnsafe)) {
			t.Errorf("%s: %+v %v", name, out, err)
		}
	}
}

// Disks of other programs are taken, to be converted.
func TestForeignDisks(t *testing.T) {
	dir := t.TempDir()
	for name, format := range map[string]disk.Format{"vmdk": disk.VMDK, "vpc": disk.VHD, "vhdx": disk.VHDX, "vdi": disk.VDI} {
		path := filepath.Join(dir, name)
		if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", name, path, "64M").CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out, err := look(t, b, image.RoleDisk)
		if is, foreign := disk.Foreign(out.Format); err != nil || !foreign || is != format || out.VirtualBytes < 64*unit.MiB {
			t.Errorf("%s: %+v %v", name, out, err)
		}
	}
	if _, foreign := disk.Foreign("raw"); foreign {
		t.Error("raw is foreign")
	}
}

func TestKernelsAndInitrds(t *testing.T) {
	kernel := make([]byte, 1024)
	copy(kernel[0x202:], "HdrS")
	for _, c := range []struct {
		name string
		role image.Role
		body []byte
		ok   bool
	}{
		{"kernel", image.RoleKernel, kernel, true},
		{"kernel empty", image.RoleKernel, nil, false},
		{"kernel cut", image.RoleKernel, kernel[:0x205], false},
		{"kernel of zeros", image.RoleKernel, make([]byte, 4096), false},
		{"kernel ELF", image.RoleKernel, append([]byte("\x7fELF"), make([]byte, 4096)...), false},
		{"kernel qcow2", image.RoleKernel, good(), false},
		{"initrd cpio", image.RoleInitrd, []byte("070701"), true},
		{"initrd gzip", image.RoleInitrd, []byte("\x1f\x8b\x08"), true},
		{"initrd empty", image.RoleInitrd, nil, false},
		{"initrd cut", image.RoleInitrd, []byte("07070"), false},
		{"initrd of old cpio", image.RoleInitrd, []byte("070707"), false},
		{"initrd kernel", image.RoleInitrd, kernel, false},
		{"no role", "firmware", kernel, false},
	} {
		out, err := look(t, c.body, c.role)
		if c.ok && (err != nil || out.Format != "raw") || !c.ok && !errs.Is(err, errs.InvalidImage) {
			t.Errorf("%s: %+v %v", c.name, out, err)
		}
	}
	big := io.NewSectionReader(bytes.NewReader(kernel), 0, 1024)
	if _, err := File(big, maxBoot+1, image.RoleKernel); !errs.Is(err, errs.InvalidImage) {
		t.Errorf("a kernel of more than 1 GiB: %v", err)
	}
	if _, err := File(bytes.NewReader([]byte("070701")), maxBoot+1, image.RoleInitrd); !errs.Is(err, errs.InvalidImage) {
		t.Errorf("an initrd of more than 1 GiB: %v", err)
	}
}

type broken struct{}

// ReadAt implements io.ReaderAt.
func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("I/O error") }

// A file that cannot be read is the host's failure, not the image's.
func TestUnreadable(t *testing.T) {
	if _, err := File(broken{}, 4096, image.RoleDisk); !errs.Is(err, errs.HostFailure) {
		t.Errorf("%v", err)
	}
}

// What qemu-img really makes is taken, with its virtual size.
func TestRealImages(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %s: %v %s", strings.Join(args, " "), err, out)
		}
	}
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte("some content of a disk\n"), 1<<20)[:16*unit.MiB], 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(name, path, format string, want int64) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		r := &counting{ReaderAt: f}
		out, err := File(r, info.Size(), image.RoleDisk)
		if err != nil || out != (Result{format, want}) || r.bytes > mostRead+int(maxL1) {
			t.Errorf("%s: %+v %v, %d bytes read", name, out, err, r.bytes)
		}
	}
	check("raw", raw, "raw", 16*unit.MiB)
	for i, opts := range []string{
		"compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "lazy_refcounts=on", "refcount_bits=1", "refcount_bits=64",
		"compression_type=zstd", "extended_l2=on", "extended_l2=on,compression_type=zstd", "preallocation=metadata", "compat=0.10,cluster_size=2M",
	} {
		for _, size := range []int64{512, 100 * unit.MiB, 3*unit.GiB + 512} {
			if strings.Contains(opts, "preallocation") && size > unit.GiB {
				continue
			}
			path := filepath.Join(dir, fmt.Sprintf("created-%d-%d", i, size))
			run("create", "-q", "-f", "qcow2", "-o", opts, path, fmt.Sprint(size))
			check(opts, path, "qcow2", size)
		}
		if i%4 == 0 || strings.Contains(opts, "zstd") {
			path := filepath.Join(dir, fmt.Sprintf("converted-%d", i))
			run("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", opts, raw, path)
			check("compressed "+opts, path, "qcow2", 16*unit.MiB)
		}
	}
	largest := filepath.Join(dir, "largest")
	run("create", "-q", "-f", "qcow2", largest, fmt.Sprint(maxVirtual))
	check("largest", largest, "qcow2", maxVirtual)
}

// FuzzInspect: whatever comes, nothing panics, little is read, and what is taken
// has a size a disk can have.
func FuzzInspect(f *testing.F) {
	f.Add(good()[:4*65536])
	for _, c := range crafted {
		f.Add(c(good())[:1024])
	}
	for _, b := range others() {
		f.Add(b)
	}
	f.Add(goodISO())
	for _, c := range craftedISOs {
		f.Add(c(goodISO()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, role := range []image.Role{image.RoleDisk, image.RoleKernel, image.RoleInitrd, image.RoleISO} {
			out, err := look(t, b, role)
			switch {
			case err != nil && !errs.Is(err, errs.InvalidImage) && !errs.Is(err, errs.ArchiveUnsafe) && !errs.Is(err, errs.Unsupported):
				t.Errorf("%s: %v", role, err)
			case err == nil && (role == image.RoleDisk || role == image.RoleISO) && (out.VirtualBytes <= 0 || out.VirtualBytes > maxVirtual || out.VirtualBytes%512 != 0):
				t.Errorf("%s: %+v", role, out)
			}
		}
	})
}
