package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/domain/image/ova"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of ISO 9660 (ECMA-119): sectors, and where the descriptors of volumes begin.
const (
	isoSector = 2048
	isoFirst  = 16
	isoEnd    = 255 // the kind of the last descriptor
	// maxDescriptors bounds the walk: a CD has three to five.
	maxDescriptors = 64
	// maxISO is far more than any disc holds.
	maxISO = unit.TiB
)

// iso looks at an image of a CD: that it is one, that nothing else would be seen in
// it, and that it is all there.
func iso(r io.ReaderAt, head []byte, size int64) (Result, error) {
	if name := otherFormat(head); name != "" {
		return Result{}, refuse("the file is %s, not an ISO 9660 image", name)
	}
	if size > maxISO {
		return Result{}, refuse("the image is larger than %s", unit.FormatBytes(maxISO))
	}
	if size%isoSector != 0 || size < (isoFirst+2)*isoSector {
		return Result{}, refuse("%d bytes are not whole sectors of %d, or too few: the file is no ISO 9660 image, or cut short", size, isoSector)
	}
	primary, err := isoVolume(r)
	if err != nil {
		return Result{}, err
	}
	if err := isoFits(primary, size); err != nil {
		return Result{}, err
	}
	return Result{Format: "raw", VirtualBytes: size}, nil
}

// otherFormat names what else a file is by its magic; empty for nothing known.
func otherFormat(head []byte) string {
	if bytes.HasPrefix(head, []byte("QFI\xfb")) {
		return "qcow2"
	}
	if f := disk.Sniff(head, nil); f != "" {
		return string(f)
	}
	if ova.Is(head) {
		return "tar or OVA"
	}
	for _, f := range foreign {
		if len(head) >= f.at+len(f.magic) && string(head[f.at:f.at+len(f.magic)]) == f.magic {
			return f.name
		}
	}
	return ""
}

// isoVolume gives the first descriptor, which must be the primary one, and sees
// that their row ends.
func isoVolume(r io.ReaderAt) (primary []byte, err error) {
	primary = make([]byte, 190) // up to the root folder's record
	if err := readISO(r, primary, 0); err != nil {
		return nil, err
	}
	if primary[0] != 1 || primary[6] != 1 {
		return nil, refuse("the ISO 9660 image does not begin with a primary volume descriptor of version 1")
	}
	for i := 1; i < maxDescriptors; i++ {
		b := make([]byte, 7)
		if err := readISO(r, b, i); err != nil {
			return nil, err
		}
		if b[0] == isoEnd {
			return primary, nil
		}
	}
	return nil, refuse("the ISO 9660 image has more than %d descriptors", maxDescriptors)
}

// readISO reads the beginning of a descriptor.
func readISO(r io.ReaderAt, b []byte, n int) error {
	_, err := r.ReadAt(b, int64(isoFirst+n)*isoSector)
	switch {
	case errors.Is(err, io.EOF):
		return refuse("the descriptors of the ISO 9660 image run past its end")
	case err != nil:
		return errs.New(errs.HostFailure, "the image cannot be read").Because(err)
	case string(b[1:6]) != "CD001":
		return refuse("the file is not an ISO 9660 image: descriptor %d has not its mark", n)
	}
	return nil
}

// isoFits checks that the volume and its root folder lie inside of the file.
func isoFits(primary []byte, size int64) error {
	le, be := binary.LittleEndian, binary.BigEndian
	sectors, root := le.Uint32(primary[80:]), primary[156:190]
	at, length := le.Uint32(root[2:]), le.Uint32(root[10:])
	switch {
	case le.Uint16(primary[128:]) != isoSector:
		return refuse("the ISO 9660 image has blocks of %d bytes; %d are taken", le.Uint16(primary[128:]), isoSector)
	case sectors != be.Uint32(primary[84:]) || at != be.Uint32(root[6:]) || length != be.Uint32(root[14:]):
		return refuse("the ISO 9660 image says its sizes twice, and not the same")
	case sectors < isoFirst+2 || int64(sectors)*isoSector > size:
		return refuse("the ISO 9660 image has %d sectors of %d bytes by its own word, and the file %d bytes: it is cut short", sectors, isoSector, size)
	case root[0] < 34 || root[25]&2 == 0:
		return refuse("the root folder of the ISO 9660 image is none")
	}
	return isoInside(int64(at), int64(length), int64(sectors))
}

// isoInside checks that what begins at a sector and has some bytes ends within the
// volume's sectors.
func isoInside(at, length, sectors int64) error {
	if length == 0 || at*isoSector+length > sectors*isoSector {
		return refuse("the root folder of the ISO 9660 image lies outside of it")
	}
	return nil
}
