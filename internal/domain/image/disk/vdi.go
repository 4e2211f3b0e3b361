package disk

import (
	"bytes"
	"encoding/binary"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of VDI (little endian), by offset.
const (
	vdiMagicAt   = 0x40
	vdiMagic     = "\x7f\x10\xda\xbe"
	vdiVersion   = 0x44
	vdiType      = 0x4c
	vdiTable     = 0x154
	vdiData      = 0x158
	vdiSector    = 0x168
	vdiBytes     = 0x170
	vdiBlock     = 0x178
	vdiExtra     = 0x17c
	vdiBlocks    = 0x180
	vdiAllocated = 0x184
	vdiLink      = 0x1a8 // and, behind it, the parent
	vdiHeader    = 0x1c8

	vdiOne       = 0x00010001
	vdiDynamic   = 1
	vdiStatic    = 2
	vdiUnused    = 1<<32 - 1
	vdiDiscarded = 1<<32 - 2
)

// vdi is a table of blocks.
type vdi struct {
	plain
	block, table, data int64 // bytes
	count, allocated   int64
}

func openVDI(f file) (blocks, int64, error) {
	head, err := f.part(0, vdiHeader, "VDI header")
	if err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	u32 := func(at int) int64 { return int64(le.Uint32(head[at:])) }
	kind, size := u32(vdiType), le.Uint64(head[vdiBytes:])
	err = none(
		claim{u32(vdiVersion) != vdiOne, refuse("VDI version %#x is unknown", u32(vdiVersion))},
		claim{kind != vdiDynamic && kind != vdiStatic, refuse("the VDI is of type %d, which builds on another disk: dynamic and static ones are taken", kind)},
		claim{!bytes.Equal(head[vdiLink:vdiHeader], make([]byte, 32)), refuse("the VDI builds on another disk: clone it as a whole first")},
		claim{u32(vdiSector) != sector, refuse("the VDI has sectors of %d bytes: 512 are taken", u32(vdiSector))},
		claim{u32(vdiBlock) != unit.MiB || u32(vdiExtra) != 0, refuse("the VDI has blocks of %d and %d bytes: those of 1 MiB are taken", u32(vdiBlock), u32(vdiExtra))},
		claim{size == 0 || size > uint64(MaxVirtual), refuse("the VDI's size of %d bytes is not one a disk can have", size)},
	)
	if err != nil {
		return nil, 0, err
	}
	v := &vdi{plain: plain{f}, block: u32(vdiBlock), table: u32(vdiTable), data: u32(vdiData), count: u32(vdiBlocks), allocated: u32(vdiAllocated)}
	// QEMU rounds sizes that are not whole sectors up
	bytes := up(int64(size), sector) * sector
	return v, bytes, v.check(bytes)
}

func (v *vdi) check(size int64) error {
	need := up(size, v.block)
	err := none(
		claim{v.count != need, refuse("the VDI's table has %d blocks; the disk needs %d", v.count, need)},
		claim{v.allocated > v.count, refuse("the VDI has %d blocks of %d", v.allocated, v.count)},
		claim{v.table < vdiHeader || v.table%sector != 0 || !v.file.has(v.table, v.count*4), refuse("the VDI's table of blocks lies outside of the file")},
		claim{v.data%sector != 0 || v.data < v.table+v.count*4, refuse("the VDI's data lies in its table of blocks")},
	)
	return err
}

func (v *vdi) size() int64 { return v.block }

func (v *vdi) walk(tell func(n, at int64) error) error {
	left := v.file.room(v.block)
	return v.file.entries(v.table, v.count, 4, "VDI table of blocks", func(n int64, e []byte) error {
		where := int64(binary.LittleEndian.Uint32(e))
		if where == vdiUnused || where == vdiDiscarded {
			return nil
		}
		if where >= v.allocated {
			return refuse("the VDI's table names block %d of %d", where, v.allocated)
		}
		if err := left.take(); err != nil {
			return err
		}
		return tell(n, v.data+where*v.block)
	})
}
