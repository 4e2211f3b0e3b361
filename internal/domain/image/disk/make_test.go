package disk

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// The smallest good files of each format, which crafted ones are made from.

// words is content that is not zero.
func words(n int) []byte { return bytes.Repeat([]byte("content "), n/8) }

func le32(at int, v uint32) change {
	return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
}

func le64(at int, v uint64) change {
	return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b }
}

func be32(at int, v uint32) change {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b }
}

func be64(at int, v uint64) change {
	return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], v); return b }
}

func text(at int, s string) change {
	return func(b []byte) []byte { copy(b[at:], s); return b }
}

type change func([]byte) []byte

func all(cs ...change) change {
	return func(b []byte) []byte {
		for _, c := range cs {
			b = c(b)
		}
		return b
	}
}

const vmdkText = `# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 64 SPARSE "disk.vmdk"

# The Disk Data Base
ddb.virtualHWVersion = "4"
`

// goodVMDK is a disk of 64 sectors in grains of 8: header, descriptor (sector 1),
// directory (2), table (3 to 6), and grains from sector 8: the disk's 1st and 3rd.
func goodVMDK() []byte {
	b := make([]byte, 24*sector)
	all(text(0, vmdkMagic), le32(vmdkVersion, 1), le32(vmdkFlags, flagNewline), le64(vmdkCapacity, 64), le64(vmdkGrain, 8),
		le64(vmdkDescriptor, 1), le64(vmdkDescriptorN, 1), le32(vmdkPerTable, grainsPerTable), le64(vmdkDirectory, 2), le64(vmdkOverhead, 8),
		text(vmdkNewline, "\n \r\n"), text(sector, vmdkText), le32(2*sector, 3), le32(3*sector, 8), le32(3*sector+8, 16))(b)
	copy(b[8*sector:], words(8*sector))
	copy(b[16*sector:], words(8*sector))
	return b
}

// goodStream is the same disk as streamOptimized, with grains of 64 KiB and so one
// grain: header, descriptor, grain (2), table (3 to 6), directory (7), footer.
func goodStream() []byte {
	return streamOf(words(64 * sector))
}

func streamOf(grain []byte) []byte {
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, _ = z.Write(grain)
	_ = z.Close()
	b := make([]byte, 11*sector)
	head := all(text(0, vmdkMagic), le32(vmdkVersion, 3), le32(vmdkFlags, flagNewline|flagCompressed|flagMarkers), le64(vmdkCapacity, 64), le64(vmdkGrain, 128),
		le64(vmdkDescriptor, 1), le64(vmdkDescriptorN, 1), le32(vmdkPerTable, grainsPerTable), text(vmdkNewline, "\n \r\n\x01\x00"))
	all(head, le64(vmdkDirectory, atEnd), text(sector, string(bytes.ReplaceAll([]byte(vmdkText), []byte("monolithicSparse"), []byte("streamOptimized")))),
		le32(2*sector+8, uint32(packed.Len())), text(2*sector+12, packed.String()), le32(3*sector, 2), le32(7*sector, 3), le32(8*sector+12, footerMarker))(b)
	all(head, le64(vmdkDirectory, 7))(b[9*sector:])
	return b
}

// resum writes a footer's checksum, or that of a dynamic disk's header.
func resum(from, to, at int) change {
	return func(b []byte) []byte {
		var sum uint32
		clear(b[from+at : from+at+4])
		for _, c := range b[from:to] {
			sum += uint32(c)
		}
		binary.BigEndian.PutUint32(b[from+at:], ^sum)
		return b
	}
}

func footer(size uint64, kind uint32, data uint64) []byte {
	b := make([]byte, sector)
	return all(text(0, vhdMagic), be32(vhdFeatures, 2), be32(vhdVersion, vhdOne), be64(vhdData, data), text(28, "win "), be64(40, size), be64(vhdBytes, size),
		text(56, "\x00\x20\x04\x11"), be32(vhdType, kind), resum(0, sector, vhdChecksum))(b)
}

// goodFixed is a disk of 64 KiB and its footer.
func goodFixed() []byte {
	return append(words(64*1024), footer(64*1024, vhdFixed, 1<<64-1)...)
}

// goodDynamic is a disk of two blocks of 4 KiB, of which the second is
// there: footer, header (512), table (1536), block (2048), footer.
func goodDynamic() []byte {
	f := footer(8192, vhdDynamic, sector)
	b := make([]byte, 2048)
	copy(b, f)
	all(text(sector, dynMagic), be64(sector+8, 1<<64-1), be64(sector+dynTable, 1536), be32(sector+dynVersion, vhdOne), be32(sector+dynEntries, 2),
		be32(sector+dynBlock, 4096), resum(sector, sector+dynLength, dynChecksum), be32(1536, vhdUnused), be32(1540, 4))(b)
	bitmap := make([]byte, sector)
	bitmap[0] = 0xff
	return slices.Concat(b, bitmap, words(4096), f)
}

// goodVDI is a disk of 2.5 MiB, of which the second block is there.
func goodVDI() []byte {
	b := make([]byte, 1024)
	all(text(0, "<<< a disk >>>\n"), text(vdiMagicAt, vdiMagic), le32(vdiVersion, vdiOne), le32(0x48, 0x190), le32(vdiType, vdiDynamic), le32(vdiTable, 512),
		le32(vdiData, 1024), le32(vdiSector, sector), le64(vdiBytes, uint64(5*unit.MiB/2)), le32(vdiBlock, uint32(unit.MiB)), le32(vdiBlocks, 3),
		le32(vdiAllocated, 1), text(0x188, "0123456789abcdef"), text(0x198, "0123456789abcdef"),
		le32(512, vdiUnused), le32(516, 0), le32(520, vdiDiscarded))(b)
	return slices.Concat(b, words(int(unit.MiB)))
}

// crc writes the sum of a structure of VHDX.
func crc(from, to int64) change {
	return func(b []byte) []byte {
		clear(b[from+4 : from+8])
		return le32(int(from)+4, crc32.Checksum(b[from:to], crc32.MakeTable(crc32.Castagnoli)))(b)
	}
}

const (
	vhdxMeta  = int(unit.MiB)
	vhdxTable = int(2 * unit.MiB)
	vhdxBlock = int(3 * unit.MiB)
)

func headers(b []byte) []byte {
	return all(crc(vhdxHeader1, vhdxHeader1+vhdxHeaderBytes), crc(vhdxHeader2, vhdxHeader2+vhdxHeaderBytes))(b)
}

func tables(b []byte) []byte {
	return all(crc(vhdxRegions1, vhdxRegions1+vhdxTableBytes), crc(vhdxRegions2, vhdxRegions2+vhdxTableBytes))(b)
}

// goodVHDX is a disk of 3 MiB, of which the second block is there: metadata at 1
// MiB, the table at 2 MiB, the block at 3 MiB, the room for a log at 4 MiB.
func goodVHDX() []byte {
	b := make([]byte, 5*unit.MiB)
	copy(b, vhdxMagic)
	for i, at := range []int64{vhdxHeader1, vhdxHeader2} {
		all(text(int(at), "head"), le64(int(at)+8, uint64(i+1)), le32(int(at)+64, 1<<16), le32(int(at)+68, uint32(unit.MiB)), le64(int(at)+72, uint64(4*unit.MiB)))(b)
	}
	for _, at := range []int64{vhdxRegions1, vhdxRegions2} {
		e := int(at) + 16
		all(text(int(at), "regi"), le32(int(at)+8, 2), text(e, string(regionTable[:])), le64(e+16, uint64(vhdxTable)), le32(e+24, uint32(unit.MiB)), le32(e+28, 1),
			text(e+32, string(regionMetadata[:])), le64(e+48, uint64(vhdxMeta)), le32(e+56, uint32(unit.MiB)), le32(e+60, 1))(b)
	}
	copy(b[vhdxMeta:], "metadata")
	items := []struct {
		name  guid
		value []byte
	}{
		{itemParameters, binary.LittleEndian.AppendUint64(nil, uint64(unit.MiB))},
		{itemBytes, binary.LittleEndian.AppendUint64(nil, uint64(3*unit.MiB))},
		{itemPage83, []byte("0123456789abcdef")},
		{itemSector, binary.LittleEndian.AppendUint32(nil, 512)},
		{itemPhysical, binary.LittleEndian.AppendUint32(nil, 4096)},
	}
	b[vhdxMeta+10] = byte(len(items))
	at := 65536
	for i, it := range items {
		e := vhdxMeta + 32 + 32*i
		all(text(e, string(it.name[:])), le32(e+16, uint32(at)), le32(e+20, uint32(len(it.value))), le32(e+24, 4), text(vhdxMeta+at, string(it.value)))(b)
		at += len(it.value)
	}
	all(le64(vhdxTable, blockZero), le64(vhdxTable+8, 3<<20|blockPresent), headers, tables)(b)
	copy(b[vhdxBlock:], words(int(unit.MiB)))
	return b
}

// item is where an item's entry is in the good file's metadata.
func itemAt(n int) int { return vhdxMeta + 32 + 32*n }

// good are the good files.
func good() map[string]struct {
	format Format
	bytes  []byte
} {
	type g = struct {
		format Format
		bytes  []byte
	}
	return map[string]g{
		"vmdk": {VMDK, goodVMDK()}, "stream": {VMDK, goodStream()}, "fixed": {VHD, goodFixed()},
		"dynamic": {VHD, goodDynamic()}, "vdi": {VDI, goodVDI()}, "vhdx": {VHDX, goodVHDX()},
	}
}
