package disk

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of the VMDK that is written: grains of 64 KiB, and the data behind a head of as
// much, as other programs write it.
const (
	grainBytes   = 64 * unit.KiB
	headSectors  = 128
	textSectors  = 20
	markerTable  = 1
	markerIndex  = 2
	geometryHead = 255
)

// stream writes a streamOptimized VMDK to its end, without going back.
type stream struct {
	w         io.Writer
	at        int64 // sectors written
	directory []uint32
	table     [grainsPerTable]uint32
	n         int64 // the table that is filled now; -1 for none
	packed    bytes.Buffer
}

// WriteVMDK writes what a disk holds as a streamOptimized VMDK: the form in which
// disks are in appliances. name is the file's own, as its descriptor has it.
func WriteVMDK(to io.Writer, l Layer, name string) error {
	if l.Bytes()%sector != 0 || l.Bytes() < sector {
		return refuse("the disk's size of %d bytes is not in whole sectors", l.Bytes())
	}
	s := &stream{w: to, n: -1, directory: make([]uint32, up(up(l.Bytes(), grainBytes), grainsPerTable))}
	if err := s.head(l.Bytes(), name); err != nil {
		return err
	}
	grain := make([]byte, grainBytes)
	err := Flatten(l, func(at int64, p []byte) error {
		clear(grain[copy(grain, p):]) // a piece is a cluster, which is a grain
		return s.grain(at/grainBytes, grain)
	})
	if err != nil {
		return err
	}
	return s.end(l.Bytes())
}

// put writes bytes and fills their last sector.
func (s *stream) put(p []byte) error {
	n := up(int64(len(p)), sector)
	s.at += n
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	_, err := s.w.Write(make([]byte, n*sector-int64(len(p))))
	return err
}

// extent is the header, and at the end the footer.
func extentHeader(size int64, directory uint64) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, vmdkMagic)
	le.PutUint32(b[vmdkVersion:], 3)
	le.PutUint32(b[vmdkFlags:], flagNewline|flagCompressed|flagMarkers)
	le.PutUint64(b[vmdkCapacity:], uint64(size/sector))
	le.PutUint64(b[vmdkGrain:], uint64(grainBytes/sector))
	le.PutUint64(b[vmdkDescriptor:], 1)
	le.PutUint64(b[vmdkDescriptorN:], textSectors)
	le.PutUint32(b[vmdkPerTable:], grainsPerTable)
	le.PutUint64(b[vmdkDirectory:], directory)
	le.PutUint64(b[vmdkOverhead:], headSectors)
	copy(b[vmdkNewline:], "\n \r\n")
	le.PutUint16(b[vmdkCompression:], 1)
	return b
}

func (s *stream) head(size int64, name string) error {
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE %q

# The Disk Data Base
ddb.virtualHWVersion = "4"
ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "63"
`, size/sector, name, min(size/sector/63/geometryHead, 65535), geometryHead)
	b := make([]byte, (headSectors-1)*sector)
	copy(b[:textSectors*sector], text)
	if err := s.put(extentHeader(size, atEnd)); err != nil {
		return err
	}
	return s.put(b)
}

// marker begins what is not a grain: its length in sectors, and what it is.
func (s *stream) marker(sectors uint64, kind uint32) error {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, sectors)
	binary.LittleEndian.PutUint32(b[12:], kind)
	return s.put(b)
}

func (s *stream) grain(n int64, p []byte) error {
	if table := n / grainsPerTable; table != s.n {
		if err := s.flush(); err != nil {
			return err
		}
		s.n = table
	}
	s.packed.Reset()
	s.packed.Write(make([]byte, 12))
	z := zlib.NewWriter(&s.packed)
	_, err := z.Write(p)
	if closed := z.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	b := s.packed.Bytes()
	binary.LittleEndian.PutUint64(b, uint64(n*grainBytes/sector))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-12))
	if s.at > 1<<32-1 {
		return refuse("the disk holds more than fits into a VMDK")
	}
	s.table[n%grainsPerTable] = uint32(s.at)
	return s.put(b)
}

// flush writes the table of the grains before.
func (s *stream) flush() error {
	if s.n < 0 {
		return nil
	}
	if err := s.marker(grainsPerTable*4/sector, markerTable); err != nil {
		return err
	}
	if s.at > 1<<32-1 {
		return refuse("the disk holds more than fits into a VMDK")
	}
	s.directory[s.n] = uint32(s.at)
	b := make([]byte, 0, grainsPerTable*4)
	for _, e := range s.table {
		b = binary.LittleEndian.AppendUint32(b, e)
	}
	s.table = [grainsPerTable]uint32{}
	return s.put(b)
}

// end writes the directory, the footer that names it, and the end's mark.
func (s *stream) end(size int64) error {
	if err := s.flush(); err != nil {
		return err
	}
	var b []byte
	for _, e := range s.directory {
		b = binary.LittleEndian.AppendUint32(b, e)
	}
	if err := s.marker(uint64(up(int64(len(b)), sector)), markerIndex); err != nil {
		return err
	}
	at := s.at
	if err := s.put(b); err != nil {
		return err
	}
	if err := s.marker(1, footerMarker); err != nil {
		return err
	}
	if err := s.put(extentHeader(size, uint64(at))); err != nil {
		return err
	}
	return s.marker(0, 0)
}
