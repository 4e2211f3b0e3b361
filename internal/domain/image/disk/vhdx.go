package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of VHDX ([MS-VHDX], little endian).
const (
	vhdxMagic = "vhdxfile"
	// the two copies of the header, and of the table of regions.
	vhdxHeader1  = 64 * unit.KiB
	vhdxHeader2  = 128 * unit.KiB
	vhdxRegions1 = 192 * unit.KiB
	vhdxRegions2 = 256 * unit.KiB
	vhdxData     = unit.MiB // where all else may begin

	vhdxHeaderBytes = 4 * unit.KiB
	vhdxTableBytes  = 64 * unit.KiB
	maxRegions      = 2047
	maxItems        = 2047

	// The states of a block.
	blockAbsent    = 0
	blockUndefined = 1
	blockZero      = 2
	blockUnmapped  = 3
	blockPresent   = 6
)

// guid is an identifier as it lies in the file.
type guid [16]byte

// The regions, and the items of metadata.
var (
	regionTable    = guid{0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08}
	regionMetadata = guid{0x06, 0xA2, 0x7C, 0x8B, 0x90, 0x47, 0x9A, 0x4B, 0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E}
	itemParameters = guid{0x37, 0x67, 0xA1, 0xCA, 0x36, 0xFA, 0x43, 0x4D, 0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B}
	itemBytes      = guid{0x24, 0x42, 0xA5, 0x2F, 0x1B, 0xCD, 0x76, 0x48, 0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8}
	itemPage83     = guid{0xAB, 0x12, 0xCA, 0xBE, 0xE6, 0xB2, 0x23, 0x45, 0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46}
	itemSector     = guid{0x1D, 0xBF, 0x41, 0x81, 0x6F, 0xA9, 0x09, 0x47, 0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F}
	itemPhysical   = guid{0xC7, 0x48, 0xA3, 0xCD, 0x5D, 0x44, 0x71, 0x44, 0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56}
	itemParent     = guid{0x2D, 0x5F, 0xD3, 0xA8, 0x0B, 0xB3, 0x4D, 0x45, 0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C}
)

// vhdx is a table of blocks with, after each chunk of them, an entry of a map that
// only disks with a parent use.
type vhdx struct {
	plain
	block        int64 // bytes
	chunk        int64 // blocks
	table, count int64
}

func openVHDX(f file) (blocks, int64, error) {
	if err := vhdxClean(f); err != nil {
		return nil, 0, err
	}
	regions, err := vhdxRegions(f)
	if err != nil {
		return nil, 0, err
	}
	m, err := readMetadata(f, regions[regionMetadata])
	if err != nil {
		return nil, 0, err
	}
	v := &vhdx{plain: plain{f}, block: m.block, chunk: (1 << 23) * m.sector / m.block, count: up(m.bytes, m.block), table: regions[regionTable].at}
	if entries := v.count + (v.count-1)/v.chunk; entries*8 > regions[regionTable].length {
		return nil, 0, refuse("the VHDX's table of blocks is too short for the %d entries that the disk needs", entries)
	}
	return v, m.bytes, nil
}

// castagnoli checks a CRC-32C over b, whose own four bytes at 4 count as zero.
func castagnoli(b []byte) bool {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:4])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, b[8:]) == binary.LittleEndian.Uint32(b[4:])
}

// vhdxClean looks at the header that is in force, which must have no log to replay.
func vhdxClean(f file) error {
	le := binary.LittleEndian
	var head []byte
	for _, at := range []int64{vhdxHeader1, vhdxHeader2} {
		h, err := f.part(at, vhdxHeaderBytes, "VHDX header")
		if err != nil {
			return err
		}
		if string(h[:4]) != "head" || !castagnoli(h) {
			continue
		}
		if head == nil || le.Uint64(h[8:]) > le.Uint64(head[8:]) {
			head = h
		}
	}
	if head == nil {
		return refuse("both of the VHDX's headers are damaged")
	}
	return none(
		claim{le.Uint16(head[66:]) != 1, refuse("VHDX version %d is unknown", le.Uint16(head[66:]))},
		claim{!bytes.Equal(head[48:64], make([]byte, 16)), refuse("the VHDX was not closed cleanly and has a log: attach it once where it comes from, and detach it")},
	)
}

// region is a part of the file.
type region struct{ at, length int64 }

// vhdxRegions finds where the table of blocks and the metadata are.
func vhdxRegions(f file) (map[guid]region, error) {
	for _, at := range []int64{vhdxRegions1, vhdxRegions2} {
		t, err := f.part(at, vhdxTableBytes, "VHDX table of regions")
		if err != nil {
			return nil, err
		}
		if string(t[:4]) == "regi" && castagnoli(t) {
			return readRegions(f, t)
		}
	}
	return nil, refuse("both of the VHDX's tables of regions are damaged")
}

func readRegions(f file, t []byte) (map[guid]region, error) {
	n := int(binary.LittleEndian.Uint32(t[8:]))
	if n > maxRegions {
		return nil, refuse("the VHDX has %d regions: %d are allowed", n, maxRegions)
	}
	out := map[guid]region{}
	for i := range n {
		if err := readRegion(f, t[16+32*i:], out); err != nil {
			return nil, err
		}
	}
	if len(out) != 2 {
		return nil, refuse("the VHDX lacks its table of blocks or its metadata")
	}
	return out, nil
}

// readRegion takes a region that is known.
func readRegion(f file, e []byte, out map[guid]region) error {
	le := binary.LittleEndian
	name, at, length := guid(e[:16]), le.Uint64(e[16:]), int64(le.Uint32(e[24:]))
	if name != regionTable && name != regionMetadata {
		if le.Uint32(e[28:])&1 != 0 {
			return refuse("the VHDX has a region that this version does not know and may not ignore")
		}
		return nil
	}
	_, twice := out[name]
	out[name] = region{int64(min(at, uint64(f.size))), length}
	return none(
		claim{twice, refuse("the VHDX has a region twice")},
		claim{at%uint64(vhdxData) != 0 || at < uint64(vhdxData), refuse("a region of the VHDX begins where none may")},
		claim{at > uint64(f.size) || !f.has(out[name].at, length), refuse("a region of the VHDX lies outside of the file")},
	)
}

// metadata is what the items say.
type metadata struct{ block, bytes, sector int64 }

func readMetadata(f file, in region) (m metadata, err error) {
	if in.length < vhdxTableBytes {
		return m, refuse("the VHDX's metadata is cut short")
	}
	t, err := f.part(in.at, vhdxTableBytes, "VHDX metadata")
	if err != nil {
		return m, err
	}
	le := binary.LittleEndian
	n := int(le.Uint16(t[10:]))
	if string(t[:8]) != "metadata" || n > maxItems {
		return m, refuse("the VHDX's metadata is damaged")
	}
	items := map[guid][]byte{}
	for i := range n {
		e := t[32+32*i:]
		if err := readItem(f, in, e, items); err != nil {
			return m, err
		}
	}
	return itemsSay(items)
}

// wide is how long the values of items are.
var wide = map[guid]int64{itemParameters: 8, itemBytes: 8, itemPage83: 16, itemSector: 4, itemPhysical: 4}

// readItem reads the value of an item that is known.
func readItem(f file, in region, e []byte, items map[guid][]byte) error {
	le := binary.LittleEndian
	name, at, length, flags := guid(e[:16]), int64(le.Uint32(e[16:])), int64(le.Uint32(e[20:])), le.Uint32(e[24:])
	need, known := wide[name]
	_, twice := items[name]
	err := none(
		claim{name == itemParent, refuse("the VHDX builds on another disk: merge it with its parent first")},
		claim{!known && flags&4 != 0, refuse("the VHDX has metadata that this version does not know and may not ignore")},
		claim{twice, refuse("the VHDX has an item of metadata twice")},
		claim{known && (length != need || at < vhdxTableBytes || at+length > in.length), refuse("an item of the VHDX's metadata lies outside of it")},
	)
	if err != nil || !known {
		return err
	}
	items[name], err = f.part(in.at+at, need, "VHDX metadata")
	return err
}

func itemsSay(items map[guid][]byte) (m metadata, err error) {
	le := binary.LittleEndian
	for _, name := range []guid{itemParameters, itemBytes, itemSector} {
		if items[name] == nil {
			return m, refuse("the VHDX lacks an item of metadata that it must have")
		}
	}
	size := le.Uint64(items[itemBytes])
	flags := le.Uint32(items[itemParameters][4:])
	m = metadata{block: int64(le.Uint32(items[itemParameters])), sector: int64(le.Uint32(items[itemSector]))}
	err = none(
		claim{flags&2 != 0, refuse("the VHDX builds on another disk: merge it with its parent first")},
		claim{!power(m.block, unit.MiB, 256*unit.MiB), refuse("the VHDX's blocks of %d bytes are not 1 to 256 MiB in powers of two", m.block)},
		claim{m.sector != 512 && m.sector != 4096, refuse("the VHDX's sectors of %d bytes are neither 512 nor 4096", m.sector)},
		claim{size == 0 || size > uint64(MaxVirtual), refuse("the VHDX's size of %d bytes is not one a disk can have", size)},
	)
	m.bytes = int64(min(size, uint64(MaxVirtual)))
	return m, err
}

func (v *vhdx) size() int64 { return v.block }

func (v *vhdx) walk(tell func(n, at int64) error) error {
	left := v.file.room(v.block)
	entries := v.count + (v.count-1)/v.chunk
	return v.file.entries(v.table, entries, 8, "VHDX table of blocks", func(i int64, e []byte) error {
		if i%(v.chunk+1) == v.chunk {
			return nil // of the map
		}
		entry := binary.LittleEndian.Uint64(e)
		switch entry & 7 {
		case blockAbsent, blockUndefined, blockZero, blockUnmapped:
			return nil
		case blockPresent:
		default:
			return refuse("a block of the VHDX is in the state %d, which it cannot have without a parent", entry&7)
		}
		if err := left.take(); err != nil {
			return err
		}
		at := entry >> 20
		if at == 0 || at > uint64(v.file.size>>20) {
			return refuse("a block of the VHDX lies outside of the file")
		}
		return tell(i-i/(v.chunk+1), int64(at)<<20)
	})
}
