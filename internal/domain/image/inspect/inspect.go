// Package inspect looks into image files before any tool does: it tells the
// format and refuses what could make a hypervisor read another file or wait for
// ever. It reads a bounded part of the file and never more than it needs.
//
// Layouts: qcow2 from QEMU's docs/interop/qcow2.txt; VMDK, VHD, VHDX and VDI are
// package disk's, archives package ova's; the others are known by their magic
// numbers only, and refused.
package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Result is what a file is.
type Result struct {
	// Format is qcow2 or raw, or that of a disk that is to be converted.
	Format string
	// VirtualBytes is what a guest sees of a disk or CD.
	VirtualBytes int64
}

// maxVirtual is the largest disk we take: what a VM's disk may be.
const maxVirtual = disk.MaxVirtual

// File inspects a file that is to play a role in an image.
func File(r io.ReaderAt, size int64, role image.Role) (Result, error) {
	head := make([]byte, 4096)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Result{}, errs.New(errs.HostFailure, "the image cannot be read").Because(err)
	}
	head = head[:n]
	switch role {
	case image.RoleDisk:
		return diskFile(r, head, size)
	case image.RoleKernel:
		return kernel(head, size)
	case image.RoleInitrd:
		return initrd(head, size)
	case image.RoleISO:
		return iso(r, head, size)
	}
	return Result{}, refuse("there is no such role")
}

func refuse(format string, args ...any) error {
	return errs.New(errs.InvalidImage, format, args...)
}

// foreign are formats we know and do not take, by where their magic stands. Each
// can name other files or needs its own reader.
var foreign = []struct {
	at    int
	magic string
	name  string
}{
	{0, "COWD", "a VMDK of an ESX host"},
	{0, "# Disk DescriptorFile", "a VMDK descriptor, whose disk is in other files"},
	{0, "QED\x00", "QED"},
	{0, "OOOM\x00", "UML COW"},
	{0, "WithoutFreeSpace", "Parallels"},
	{0, "WithouFreSpacExt", "Parallels"},
	{0, "\x1f\x8b", "gzip: unpack it first"},
	{0, "\xfd7zXZ\x00", "xz: unpack it first"},
	{0, "\x28\xb5\x2f\xfd", "zstd: unpack it first"},
	{0, "BZh", "bzip2: unpack it first"},
}

// taken says what a disk may be.
const taken = "a disk is imported from qcow2, raw, VMDK, VHD, VHDX or VDI"

func diskFile(r io.ReaderAt, head []byte, size int64) (Result, error) {
	if bytes.HasPrefix(head, []byte("QFI\xfb")) {
		return qcow2(r, head, size)
	}
	if err := archive(r, head, size); err != nil {
		return Result{}, err
	}
	for _, f := range foreign {
		if len(head) >= f.at+len(f.magic) && string(head[f.at:f.at+len(f.magic)]) == f.magic {
			return Result{}, refuse("the file is %s; %s", f.name, taken)
		}
	}
	tail, err := lastSector(r, size)
	if err != nil {
		return Result{}, err
	}
	if f := disk.Sniff(head, tail); f != "" {
		d, err := disk.Open(r, size, f)
		if err != nil {
			return Result{}, err
		}
		return Result{Format: string(f), VirtualBytes: d.Bytes}, nil
	}
	return raw(size)
}

func raw(size int64) (Result, error) {
	if size == 0 {
		return Result{}, refuse("the file is empty")
	}
	if size%512 != 0 {
		return Result{}, refuse("the file is of no format that is known, and %d bytes are not whole sectors of 512: it is no raw disk either; %s", size, taken)
	}
	if size > maxVirtual {
		return Result{}, refuse("the disk is larger than %s", unit.FormatBytes(maxVirtual))
	}
	return Result{Format: "raw", VirtualBytes: size}, nil
}

// lastSector: a VHD has its footer there, behind what may be a raw disk.
func lastSector(r io.ReaderAt, size int64) ([]byte, error) {
	if size < 512 {
		return nil, nil
	}
	tail := make([]byte, 512)
	n, err := r.ReadAt(tail, size-512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.HostFailure, "the image cannot be read").Because(err)
	}
	return tail[:n], nil
}

// Fields of the qcow2 header, by offset.
const (
	qVersion        = 4
	qBackingOffset  = 8
	qClusterBits    = 20
	qSize           = 24
	qCrypt          = 32
	qL1Size         = 36
	qL1Offset       = 40
	qRefOffset      = 48
	qRefClusters    = 56
	qSnapshots      = 60
	qIncompatible   = 72
	qRefOrder       = 96
	qHeaderLength   = 100
	qCompression    = 104
	qHeaderV2       = 72
	qHeaderV3       = 104
	incompatDirty   = 1 << 0
	incompatCorrupt = 1 << 1
	incompatData    = 1 << 2
	incompatZstd    = 1 << 3
	incompatL2      = 1 << 4
)

// maxL1 is QEMU's own bound on the L1 table, in bytes (QCOW_MAX_L1_SIZE).
const maxL1 = 32 * unit.MiB

func qcow2(r io.ReaderAt, head []byte, size int64) (Result, error) {
	if len(head) < qHeaderV2 {
		return Result{}, refuse("the qcow2 header is cut short")
	}
	if err := qcow2Basics(head); err != nil {
		return Result{}, err
	}
	be := binary.BigEndian
	// an L2 table of one cluster maps 2^(bits-3) clusters of 2^bits bytes; extended
	// entries are twice as long
	bits, header := be.Uint32(head[qClusterBits:]), int64(qHeaderV2)
	maps := 2*bits - 3
	if be.Uint32(head[qVersion:]) == 3 {
		var err error
		if header, err = qcow2v3(head); err != nil {
			return Result{}, err
		}
		if be.Uint64(head[qIncompatible:])&incompatL2 != 0 {
			maps--
		}
	}
	if err := extensions(r, header, min(size, 1<<bits)); err != nil {
		return Result{}, err
	}
	virtual := be.Uint64(head[qSize:])
	if err := qcow2Tables(head, size, maps, virtual); err != nil {
		return Result{}, err
	}
	if err := qcow2L1(r, head, size); err != nil {
		return Result{}, err
	}
	return Result{Format: "qcow2", VirtualBytes: int64(virtual)}, nil
}

// qcow2Basics checks the fields that every version has.
func qcow2Basics(head []byte) error {
	be := binary.BigEndian
	version, bits, virtual := be.Uint32(head[qVersion:]), be.Uint32(head[qClusterBits:]), be.Uint64(head[qSize:])
	switch {
	case version != 2 && version != 3:
		return refuse("qcow2 version %d is unknown", version)
	case be.Uint64(head[qBackingOffset:]) != 0:
		return refuse("the image has a backing file: convert it to a standalone image first (qemu-img convert)")
	case be.Uint32(head[qCrypt:]) != 0:
		return refuse("the image is encrypted")
	case bits < 9 || bits > 21:
		return refuse("the cluster size of 2^%d bytes is not one that qcow2 has", bits)
	case virtual == 0 || virtual > uint64(maxVirtual) || virtual%512 != 0:
		return refuse("the virtual size of %d bytes is not between 512 bytes and %s in whole sectors", virtual, unit.FormatBytes(maxVirtual))
	}
	return nil
}

// qcow2Tables checks that the tables the header points at lie inside the file
// and are as large as the disk needs, not larger.
// maps is how many bytes, as a power of 2, one L1 entry stands for.
func qcow2Tables(head []byte, size int64, maps uint32, virtual uint64) error {
	be := binary.BigEndian
	bits := be.Uint32(head[qClusterBits:])
	l1Entries, l1Offset := uint64(be.Uint32(head[qL1Size:])), be.Uint64(head[qL1Offset:])
	need := (virtual + 1<<maps - 1) >> maps
	switch {
	case l1Entries < need || l1Entries*8 > uint64(maxL1):
		return refuse("the L1 table has %d entries; the disk needs %d", l1Entries, need)
	case !inside(l1Offset, l1Entries*8, size, bits):
		return refuse("the L1 table lies outside of the file")
	case !inside(be.Uint64(head[qRefOffset:]), uint64(be.Uint32(head[qRefClusters:]))<<bits, size, bits):
		return refuse("the refcount table lies outside of the file")
	case be.Uint32(head[qRefClusters:]) == 0 || uint64(be.Uint32(head[qRefClusters:]))<<bits > uint64(8*unit.MiB):
		return refuse("the refcount table has a size that qcow2 does not allow")
	case be.Uint32(head[qSnapshots:]) != 0:
		return refuse("the image has internal snapshots: convert it to a plain image first (qemu-img convert)")
	}
	return nil
}

func inside(offset, length uint64, size int64, bits uint32) bool {
	if size < 0 || offset == 0 || offset&(1<<bits-1) != 0 {
		return false
	}
	return offset <= uint64(size) && length <= uint64(size)-offset
}

// qcow2v3 checks what version 3 added to the header, and gives its length.
func qcow2v3(head []byte) (int64, error) {
	if len(head) < qHeaderV3 {
		return 0, refuse("the qcow2 header is cut short")
	}
	be := binary.BigEndian
	incompatible := be.Uint64(head[qIncompatible:])
	if err := features(incompatible); err != nil {
		return 0, err
	}
	if order := be.Uint32(head[qRefOrder:]); order > 6 {
		return 0, refuse("the qcow2 refcounts are 2^%d bits wide, which is not a width they have", order)
	}
	length := int64(be.Uint32(head[qHeaderLength:]))
	if length < qHeaderV3 || length > int64(len(head)) || length > 1<<be.Uint32(head[qClusterBits:]) || length%8 != 0 {
		return 0, refuse("the qcow2 header claims to be %d bytes long", length)
	}
	return length, compression(head, length, incompatible)
}

// features refuses what the image says nobody may ignore, but for what we know.
func features(incompatible uint64) error {
	switch {
	case incompatible&incompatData != 0:
		return refuse("the image keeps its data in an external file")
	case incompatible&incompatDirty != 0:
		return refuse("the image was not closed cleanly: repair it first (qemu-img check -r all)")
	case incompatible&incompatCorrupt != 0:
		return refuse("the image is marked as corrupt: repair it first (qemu-img check -r all)")
	case incompatible&^uint64(incompatZstd|incompatL2) != 0:
		return refuse("the image uses features that this version does not know (bits %#x)", incompatible)
	}
	return nil
}

// compression: the type is named when it is not zlib (0), and only zstd (1) is
// another.
func compression(head []byte, length int64, incompatible uint64) error {
	var kind byte
	if length > qCompression {
		kind = head[qCompression]
	}
	if zstd := incompatible&incompatZstd != 0; kind > 1 || zstd != (kind == 1) {
		return refuse("the image's compression type %d is not one that qcow2 has", kind)
	}
	return nil
}

// maxExtensions bounds the walk: QEMU writes at most five.
const maxExtensions = 64

// extensions walks the header's extensions, which end with the first cluster or
// the file: one of them names an external data file, one a format of a backing
// file; a file without either has neither.
func extensions(r io.ReaderAt, at, end int64) error {
	head := make([]byte, 8)
	for range maxExtensions {
		if at+8 > end {
			return refuse("the qcow2 header's extensions run past its first cluster")
		}
		if _, err := r.ReadAt(head, at); err != nil {
			return refuse("the qcow2 header's extensions cannot be read")
		}
		kind, length := binary.BigEndian.Uint32(head), int64(binary.BigEndian.Uint32(head[4:]))
		switch kind {
		case 0:
			return nil
		case 0xE2792ACA:
			return refuse("the image names the format of a backing file")
		case 0x44415441:
			return refuse("the image keeps its data in an external file")
		case 0x0537be77:
			return refuse("the image is encrypted")
		}
		at += 8 + (length+7)/8*8
	}
	return refuse("the qcow2 header has too many extensions")
}

// maxBoot bounds kernels and initrds: both are loaded into guest memory whole.
const maxBoot = unit.GiB

// kernel: an x86 bzImage has "HdrS" at 0x202 (Linux Documentation/arch/x86/boot.rst).
func kernel(head []byte, size int64) (Result, error) {
	if len(head) < 0x206 || string(head[0x202:0x206]) != "HdrS" {
		return Result{}, refuse("the file is not an x86 Linux kernel (bzImage)")
	}
	if size > maxBoot {
		return Result{}, refuse("the kernel is larger than %s", unit.FormatBytes(maxBoot))
	}
	return Result{Format: "raw"}, nil
}

// initrd: a cpio archive, packed or not (Linux early-userspace/buffer-format).
func initrd(head []byte, size int64) (Result, error) {
	if size > maxBoot {
		return Result{}, refuse("the initrd is larger than %s", unit.FormatBytes(maxBoot))
	}
	for _, magic := range []string{"070701", "070702", "\x1f\x8b", "\xfd7zXZ", "\x28\xb5\x2f\xfd", "BZh", "\x02\x21\x4c\x18", "\x04\x22\x4d\x18", "\x5d\x00\x00", "\x89LZO"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return Result{Format: "raw"}, nil
		}
	}
	return Result{}, refuse("the file is not an initrd (cpio, packed or not)")
}
