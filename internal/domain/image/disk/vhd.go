package disk

import (
	"bytes"
	"encoding/binary"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of VHD (big endian), by offset: the footer, and the header of a dynamic disk.
const (
	vhdMagic    = "conectix"
	vhdFeatures = 8
	vhdVersion  = 12
	vhdData     = 16
	vhdBytes    = 48
	vhdType     = 60
	vhdChecksum = 64

	vhdFixed   = 2
	vhdDynamic = 3
	vhdDiffers = 4

	dynMagic    = "cxsparse"
	dynTable    = 16
	dynVersion  = 24
	dynEntries  = 28
	dynBlock    = 32
	dynChecksum = 36
	dynParent   = 40
	dynLength   = 1024

	vhdOne    = 0x00010000 // version 1.0, of both
	vhdUnused = 1<<32 - 1
)

// vhd is a dynamic disk: a table of blocks, each behind a map of its sectors.
type vhd struct {
	plain
	block, bitmap int64 // bytes
	table, count  int64
}

func openVHD(f file) (blocks, int64, error) {
	foot, err := f.part(f.size-sector, sector, "VHD footer")
	if err != nil {
		return nil, 0, err
	}
	if err := vhdFooter(foot); err != nil {
		return nil, 0, err
	}
	be := binary.BigEndian
	size := be.Uint64(foot[vhdBytes:])
	if size > uint64(MaxVirtual) {
		return nil, 0, refuse("the VHD's size of %d bytes is more than %s", size, unit.FormatBytes(MaxVirtual))
	}
	if be.Uint32(foot[vhdType:]) == vhdFixed {
		if !f.has(0, int64(size)+sector) {
			return nil, 0, refuse("the VHD holds %d bytes by its own word, and the file has %d: it is cut short", size, f.size)
		}
		return whole{plain{f}, int64(size)}, int64(size), nil
	}
	v, err := openDynamic(f, foot, int64(size))
	return v, int64(size), err
}

func vhdFooter(foot []byte) error {
	be := binary.BigEndian
	kind := be.Uint32(foot[vhdType:])
	return none(
		claim{string(foot[:8]) != vhdMagic, refuse("the VHD does not end with its footer: the file is cut short")},
		claim{!vhdSum(foot, vhdChecksum), refuse("the VHD's footer is damaged: its checksum is wrong")},
		claim{be.Uint32(foot[vhdVersion:]) != vhdOne, refuse("VHD version %#x is unknown", be.Uint32(foot[vhdVersion:]))},
		claim{be.Uint32(foot[vhdFeatures:])&^3 != 0, refuse("the VHD uses features that this version does not know (bits %#x)", be.Uint32(foot[vhdFeatures:]))},
		claim{kind == vhdDiffers, refuse("the VHD builds on another disk: merge it with its parent first")},
		claim{kind != vhdFixed && kind != vhdDynamic, refuse("the VHD is of type %d: fixed and dynamic disks are taken", kind)},
	)
}

// vhdSum checks the ones' complement of the sum of all bytes but its own.
func vhdSum(b []byte, at int) bool {
	var sum uint32
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum == binary.BigEndian.Uint32(b[at:])
}

func openDynamic(f file, foot []byte, size int64) (blocks, error) {
	be := binary.BigEndian
	first, err := f.part(0, sector, "VHD header")
	if err != nil {
		return nil, err
	}
	at := be.Uint64(foot[vhdData:])
	if !bytes.Equal(first, foot) || at < sector || at > uint64(f.size) {
		return nil, refuse("the VHD's footer is not that of its header")
	}
	head, err := f.part(int64(at), dynLength, "VHD header of a dynamic disk")
	if err != nil {
		return nil, err
	}
	return dynamic(f, head, size)
}

// dynamic reads the header of a dynamic disk.
func dynamic(f file, head []byte, size int64) (blocks, error) {
	be := binary.BigEndian
	table, count, block := be.Uint64(head[dynTable:]), int64(be.Uint32(head[dynEntries:])), int64(be.Uint32(head[dynBlock:]))
	err := none(
		claim{string(head[:8]) != dynMagic || !vhdSum(head, dynChecksum), refuse("the VHD's header of a dynamic disk is damaged")},
		claim{be.Uint32(head[dynVersion:]) != vhdOne, refuse("version %#x of a dynamic VHD is unknown", be.Uint32(head[dynVersion:]))},
		claim{!bytes.Equal(head[dynParent:dynParent+16], make([]byte, 16)), refuse("the VHD builds on another disk: merge it with its parent first")},
		claim{!power(block, 4096, 256*unit.MiB), refuse("the VHD's blocks of %d bytes are not 4 KiB to 256 MiB in powers of two", block)},
	)
	if err != nil {
		return nil, err
	}
	need := up(size, block)
	if count < need || table < sector || table > uint64(f.size) || !f.has(int64(table), need*4) {
		return nil, refuse("the VHD's table of %d blocks lies outside of the file, or is too short for the %d that the disk needs", count, need)
	}
	return &vhd{plain: plain{f}, block: block, bitmap: up(block/sector/8, sector) * sector, table: int64(table), count: need}, nil
}

func (v *vhd) size() int64 { return v.block }

func (v *vhd) walk(tell func(n, at int64) error) error {
	left := v.file.room(v.block + v.bitmap)
	return v.file.entries(v.table, v.count, 4, "VHD table of blocks", func(n int64, e []byte) error {
		where := binary.BigEndian.Uint32(e)
		if where == vhdUnused {
			return nil
		}
		if err := left.take(); err != nil {
			return err
		}
		if where == 0 {
			return refuse("a block of the VHD lies in its header")
		}
		return tell(n, int64(where)*sector+v.bitmap)
	})
}

// window is how many entries of a table are read at a time.
const window = 4096

// entries reads a table, a window at a time.
func (f file) entries(at, count, each int64, what string, tell func(n int64, e []byte) error) error {
	buf := make([]byte, min(count, window)*each)
	for n := int64(0); n < count; {
		p := buf[:min(int64(len(buf)), (count-n)*each)]
		if err := f.full(p, at+n*each, what); err != nil {
			return err
		}
		for i := int64(0); i < int64(len(p)); i += each {
			if err := tell(n, p[i:i+each]); err != nil {
				return err
			}
			n++
		}
	}
	return nil
}

// whole is a disk that lies in the file as it is, from its beginning.
type whole struct {
	plain
	bytes int64
}

func (w whole) size() int64 { return piece }

func (w whole) walk(tell func(n, at int64) error) error {
	for n := int64(0); n*piece < w.bytes; n++ {
		if err := tell(n, n*piece); err != nil {
			return err
		}
	}
	return nil
}
