package disk

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of the sparse extent (little endian), by offset.
const (
	vmdkMagic       = "KDMV"
	vmdkVersion     = 4
	vmdkFlags       = 8
	vmdkCapacity    = 12
	vmdkGrain       = 20
	vmdkDescriptor  = 28
	vmdkDescriptorN = 36
	vmdkPerTable    = 44
	vmdkDirectory   = 56
	vmdkOverhead    = 64
	vmdkUnclean     = 72
	vmdkNewline     = 73
	vmdkCompression = 77

	flagNewline    = 1 << 0
	flagRedundant  = 1 << 1
	flagZeroGrain  = 1 << 2
	flagCompressed = 1 << 16
	flagMarkers    = 1 << 17
	flagsKnown     = flagNewline | flagRedundant | flagZeroGrain | flagCompressed | flagMarkers

	// atEnd says that a footer, near the end of the file, has the directory's place.
	atEnd        = 1<<64 - 1
	footerMarker = 3

	grainsPerTable = 512
	maxGrain       = unit.MiB
)

// vmdk is a sparse extent: a directory of tables of grains.
type vmdk struct {
	plain
	capacity, grain int64 // bytes
	directory       int64 // where it is, bytes
	overhead        int64 // where grains may begin, bytes
	zeroGrain       bool
	compressed      bool
	packed, open    []byte // of one grain
	have            int64  // the grain that open holds; -1 for none
}

func openVMDK(f file) (blocks, int64, error) {
	head, err := f.part(0, sector, "VMDK header")
	if err != nil {
		return nil, 0, err
	}
	if err := vmdkHeader(head); err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	capacity := int64(le.Uint64(head[vmdkCapacity:])) * sector
	if err := vmdkDescriptorOf(f, head); err != nil {
		return nil, 0, err
	}
	if le.Uint64(head[vmdkDirectory:]) == atEnd {
		if head, err = vmdkFooter(f, head); err != nil {
			return nil, 0, err
		}
	}
	flags := le.Uint32(head[vmdkFlags:])
	v := &vmdk{
		plain: plain{f}, capacity: capacity, grain: int64(le.Uint64(head[vmdkGrain:])) * sector, have: -1,
		zeroGrain: flags&flagZeroGrain != 0, compressed: flags&flagCompressed != 0,
	}
	if v.directory, err = f.sectors(le.Uint64(head[vmdkDirectory:]), up(up(capacity, v.grain), grainsPerTable)*4, "VMDK grain directory"); err != nil {
		return nil, 0, err
	}
	// grains come behind the header and the descriptor at the least
	v.overhead = sector
	if over := le.Uint64(head[vmdkOverhead:]); !v.compressed && over < uint64(f.size/sector) {
		v.overhead = max(sector, int64(over)*sector)
	}
	return v, capacity, nil
}

// sectors gives the place in bytes of something that begins at a sector.
func (f file) sectors(at uint64, length int64, what string) (int64, error) {
	if at == 0 || at > uint64(f.size/sector) || !f.has(int64(at)*sector, length) {
		return 0, refuse("the %s lies outside of the file, which has %d bytes", what, f.size)
	}
	return int64(at) * sector, nil
}

func vmdkHeader(head []byte) error {
	le := binary.LittleEndian
	version, flags := le.Uint32(head[vmdkVersion:]), le.Uint32(head[vmdkFlags:])
	capacity, grain := le.Uint64(head[vmdkCapacity:]), le.Uint64(head[vmdkGrain:])
	compression := le.Uint16(head[vmdkCompression:])
	err := none(
		claim{version < 1 || version > 3, refuse("VMDK version %d is unknown", version)},
		claim{flags&^uint32(flagsKnown) != 0, refuse("the VMDK uses features that this version does not know (bits %#x)", flags&^uint32(flagsKnown))},
		claim{capacity == 0 || capacity > uint64(MaxVirtual/sector), refuse("the VMDK's capacity of %d sectors is not one a disk can have", capacity)},
		claim{grain > uint64(maxGrain/sector) || !power(int64(grain), 8, maxGrain/sector), refuse("the VMDK's grains of %d sectors are not 8 to %d in powers of two", grain, maxGrain/sector)},
		claim{le.Uint32(head[vmdkPerTable:]) != grainsPerTable, refuse("the VMDK's tables have %d entries, not %d", le.Uint32(head[vmdkPerTable:]), grainsPerTable)},
	)
	if err != nil {
		return err
	}
	compressed := flags&flagCompressed != 0
	return none(
		claim{compression > 1 || compressed != (compression == 1), refuse("the VMDK's compression %d is not one that it has", compression)},
		claim{compressed != (flags&flagMarkers != 0), refuse("the VMDK has compressed grains without markers, or markers without compressed grains")},
		claim{flags&flagNewline != 0 && string(head[vmdkNewline:vmdkNewline+4]) != "\n \r\n", refuse("the VMDK was damaged by a transfer as text")},
		claim{head[vmdkUnclean] > 1, refuse("the VMDK's mark of a clean shutdown is damaged")},
		claim{head[vmdkUnclean] == 1, refuse("the VMDK was not closed cleanly: shut its machine down and export it again")},
	)
}

// vmdkFooter reads the copy of the header that a stream has at its end.
func vmdkFooter(f file, head []byte) ([]byte, error) {
	tail, err := f.part(f.size-3*sector, 3*sector, "VMDK footer")
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	foot, end := tail[sector:2*sector], tail[2*sector:]
	err = none(
		claim{le.Uint32(tail[8:]) != 0 || le.Uint32(tail[12:]) != footerMarker, refuse("the VMDK's footer has not its mark: the file is cut short")},
		claim{!bytes.Equal(end, make([]byte, sector)), refuse("the VMDK does not end with its mark: the file is cut short, or has more behind it")},
		claim{string(foot[:4]) != vmdkMagic, refuse("the VMDK's footer is damaged")},
		// flags, capacity and grains; what follows may differ
		claim{!bytes.Equal(foot[vmdkFlags:vmdkDescriptor], head[vmdkFlags:vmdkDescriptor]), refuse("the VMDK's footer is not that of its header")},
		claim{le.Uint64(foot[vmdkDirectory:]) == atEnd, refuse("the VMDK's footer does not say where the directory is")},
	)
	if err != nil {
		return nil, err
	}
	return foot, vmdkHeader(foot)
}

func (v *vmdk) size() int64 { return v.grain }

// walk reads the directory, and its tables, one at a time.
func (v *vmdk) walk(tell func(n, at int64) error) error {
	each := v.grain
	if v.compressed {
		each = sector // each has a marker
	}
	left := v.file.room(each)
	grains := up(v.capacity, v.grain)
	table := make([]byte, grainsPerTable*4)
	var entry [4]byte
	for n := int64(0); n < grains; n += grainsPerTable {
		if err := v.file.full(entry[:], v.directory+n/grainsPerTable*4, "VMDK grain directory"); err != nil {
			return err
		}
		where := binary.LittleEndian.Uint32(entry[:])
		if where == 0 {
			continue
		}
		at, err := v.file.sectors(uint64(where), 4, "VMDK grain table")
		if err != nil {
			return err
		}
		entries := table[:min(grains-n, grainsPerTable)*4]
		if err := v.file.full(entries, at, "VMDK grain table"); err != nil {
			return err
		}
		if err := v.grains(n, entries, left, tell); err != nil {
			return err
		}
	}
	return nil
}

// grains tells of those that one table names.
func (v *vmdk) grains(first int64, entries []byte, left *budget, tell func(n, at int64) error) error {
	for i := 0; i < len(entries); i += 4 {
		where := binary.LittleEndian.Uint32(entries[i:])
		if where == 0 || v.zeroGrain && where == 1 {
			continue
		}
		if err := left.take(); err != nil {
			return err
		}
		at := int64(where) * sector
		if at < v.overhead {
			return refuse("a grain of the VMDK lies in its header")
		}
		if err := tell(first+int64(i)/4, at); err != nil {
			return err
		}
	}
	return nil
}

func (v *vmdk) read(p []byte, n, at, skip int64) error {
	if !v.compressed {
		return v.plain.read(p, n, at, skip)
	}
	if v.have != n {
		if err := v.unpack(n, at); err != nil {
			v.have = -1
			return err
		}
		v.have = n
	}
	copy(p, v.open[skip:])
	return nil
}

// unpack opens the grain n, whose marker is at a byte of the file.
func (v *vmdk) unpack(n, at int64) error {
	var marker [12]byte
	if err := v.file.full(marker[:], at, "VMDK grain"); err != nil {
		return err
	}
	le := binary.LittleEndian
	begins, length := le.Uint64(marker[:]), int64(le.Uint32(marker[8:]))
	if begins != uint64(n*v.grain/sector) || length == 0 || length > 2*v.grain {
		return refuse("a grain of the VMDK is not the one that its table names")
	}
	if v.open == nil {
		v.open, v.packed = make([]byte, v.grain), make([]byte, 2*v.grain)
	}
	packed := v.packed[:length]
	if err := v.file.full(packed, at+12, "VMDK grain"); err != nil {
		return err
	}
	got, err := inflate(v.open, packed)
	if err != nil {
		return err
	}
	if got < min(v.grain, v.capacity-n*v.grain) {
		return refuse("a grain of the VMDK is cut short")
	}
	clear(v.open[got:])
	return nil
}

// inflate unpacks all of a stream, which may not hold more than there is room for.
func inflate(p, packed []byte) (int64, error) {
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return 0, refuse("a grain of the VMDK cannot be unpacked")
	}
	got, err := io.ReadFull(z, p)
	if err == nil {
		// to the end, where the checksum is
		if more, end := z.Read(make([]byte, 1)); more > 0 || !errors.Is(end, io.EOF) {
			return 0, refuse("a grain of the VMDK holds more than a grain, or is damaged")
		}
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, refuse("a grain of the VMDK cannot be unpacked")
	}
	return int64(got), nil
}
