package dir

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// The qcow2 format, version 3 (docs/interop/qcow2.txt of QEMU), as far as an
// image without data needs it: header, refcount table and one refcount block, a
// cluster each, and an empty L1 table.
const (
	clusterBits  = 16
	clusterSize  = 1 << clusterBits
	perL2        = clusterSize / 8 // entries of a table that is one cluster
	headerLength = 104
	// maxSize keeps the L1 table, and with it every image, small.
	maxSize = 64 * unit.TiB
	// maxL1 is the entries of the L1 table, in every image those of the largest, so
	// that growing one is a matter of its header alone. It stays a hole in the file
	// where nothing is written.
	maxL1 = maxSize / (clusterSize * perL2)
	// maxBackingName is the format's.
	maxBackingName = 1023

	refcountTableAt = 1 * clusterSize
	refcountBlockAt = 2 * clusterSize
	l1At            = 3 * clusterSize

	extBackingFormat = 0xe2792aca
)

// writeEmpty writes an image of a size that holds nothing of its own and shows its
// backing file, if it has one. The file ends up sparse.
func writeEmpty(f interface {
	io.WriterAt
	Truncate(int64) error
}, size int64, backing *contract.File,
) error {
	const used = 3 + maxL1*8/clusterSize
	head, err := header(size, maxL1, backing)
	if err != nil {
		return err
	}
	table := binary.BigEndian.AppendUint64(nil, refcountBlockAt)
	var block []byte
	for range used { // 16-bit counts, each cluster used once
		block = binary.BigEndian.AppendUint16(block, 1)
	}
	if err := f.Truncate(used * clusterSize); err != nil {
		return err
	}
	for _, part := range []struct {
		at   int64
		data []byte
	}{{0, head}, {refcountTableAt, table}, {refcountBlockAt, block}} {
		if _, err := f.WriteAt(part.data, part.at); err != nil {
			return err
		}
	}
	return nil
}

func header(size, l1Entries int64, backing *contract.File) ([]byte, error) {
	var ext []byte
	name := ""
	if backing != nil {
		name = backing.Path
		ext = appendExtension(ext, extBackingFormat, backing.Format)
	}
	ext = append(ext, make([]byte, 8)...) // the extension that ends them
	if len(name) > maxBackingName {
		return nil, errs.New(errs.TooLarge, "the path of the base image is too long by %d bytes", len(name)-maxBackingName)
	}
	nameAt := int64(0)
	if name != "" {
		nameAt = headerLength + int64(len(ext))
	}
	var b []byte
	u32 := func(v int64) { b = binary.BigEndian.AppendUint32(b, uint32(v)) }
	u64 := func(v int64) { b = binary.BigEndian.AppendUint64(b, uint64(v)) }
	b = append(b, 'Q', 'F', 'I', 0xfb)
	u32(3) // version
	u64(nameAt)
	u32(int64(len(name)))
	u32(clusterBits)
	u64(size)
	u32(0) // not encrypted
	u32(l1Entries)
	u64(l1At)
	u64(refcountTableAt)
	u32(1) // refcount table: one cluster
	u32(0) // snapshots
	u64(0)
	u64(0) // incompatible features
	u64(0) // compatible features
	u64(0) // auto-clear features
	u32(4) // refcounts of 1<<4 bits
	u32(headerLength)
	b = append(b, ext...)
	return append(b, name...), nil
}

// appendExtension appends a header extension, padded to 8 bytes.
func appendExtension(b []byte, kind uint32, data string) []byte {
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// sizeAt is where the header has what growing is about: the size, the encryption,
// the entries of the L1 table, and where that is.
const sizeAt = 24

// errL1 says that the L1 table has no room for a size.
var errL1 = errors.New("its table of clusters, made by an earlier version, has no room for that")

// writeSize makes an image of ours larger. Nothing else in it changes, and the
// one write is within a sector.
func writeSize(f interface {
	io.ReaderAt
	io.WriterAt
}, size int64,
) error {
	var b [24]byte
	if _, err := f.ReadAt(b[:], sizeAt); err != nil {
		return err
	}
	entries, at := int64(binary.BigEndian.Uint32(b[12:])), binary.BigEndian.Uint64(b[16:])
	need := (size + clusterSize*perL2 - 1) / (clusterSize * perL2)
	room := entries
	if at == l1At { // where we put it: the rest of its last cluster is ours and empty
		room = (entries + perL2 - 1) / perL2 * perL2
	}
	if need > room {
		return errL1
	}
	binary.BigEndian.PutUint64(b[:], uint64(size))
	binary.BigEndian.PutUint32(b[12:], uint32(max(need, entries)))
	_, err := f.WriteAt(b[:16], sizeAt)
	return err
}
