package inspect

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// What an entry of the L1 table has besides the place of its table.
const (
	l1Copied = 1 << 63
	l1Place  = 1<<56 - 1<<9
	// l1Window is how much of it is read at a time.
	l1Window = 64 * unit.KiB
)

// qcow2L1 checks what the L1 table names: each L2 table in the file, on a cluster of
// its own. Otherwise a small file could say that it holds one table a million times.
func qcow2L1(r io.ReaderAt, head []byte, size int64) error {
	be := binary.BigEndian
	bits := be.Uint32(head[qClusterBits:])
	left, at := int64(be.Uint32(head[qL1Size:]))*8, int64(be.Uint64(head[qL1Offset:]))
	buf := make([]byte, min(left, l1Window))
	var tables []uint64
	for ; left > 0; left -= int64(len(buf)) {
		buf = buf[:min(left, int64(len(buf)))]
		if _, err := r.ReadAt(buf, at); err != nil && !errors.Is(err, io.EOF) {
			return errs.New(errs.HostFailure, "the image cannot be read").Because(err)
		}
		at += int64(len(buf))
		for i := 0; i < len(buf); i += 8 {
			e := be.Uint64(buf[i:])
			if e == 0 {
				continue
			}
			if err := l1Entry(e, size, bits); err != nil {
				return err
			}
			tables = append(tables, e&l1Place)
		}
	}
	slices.Sort(tables)
	if n := len(tables); len(slices.Compact(tables)) != n {
		return refuse("the L1 table names a table of clusters twice")
	}
	return nil
}

func l1Entry(e uint64, size int64, bits uint32) error {
	if e&^uint64(l1Copied|l1Place) != 0 {
		return refuse("the L1 table has an entry with bits that qcow2 does not have")
	}
	if !inside(e&l1Place, 1<<bits, size, bits) {
		return refuse("the L1 table names a table of clusters outside of the file")
	}
	return nil
}
