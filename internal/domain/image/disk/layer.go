package disk

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
)

// Layer is a disk that can be read anywhere, within Bytes.
type Layer interface {
	io.ReaderAt
	Bytes() int64
}

// Raw is a file that is a disk as it is.
type Raw struct{ file file }

// NewRaw makes a layer of a raw disk of a size in bytes.
func NewRaw(r io.ReaderAt, size int64) Raw { return Raw{file{r, size}} }

// Bytes implements Layer.
func (d Raw) Bytes() int64 { return d.file.size }

// ReadAt implements Layer.
func (d Raw) ReadAt(p []byte, at int64) (int, error) {
	return len(p), d.file.full(p, at, "disk")
}

// QCOW2 is a qcow2 image, on the layer below it. What its header says of a backing
// file is not looked at: who opens it knows. It is not safe for concurrent use.
type QCOW2 struct {
	file  file
	below Layer // nil for none
	bytes int64
	bits  uint
	wide  bool // entries of 16 bytes, with a map of subclusters
	l1    int64
	l1n   int64

	table   []byte // the L2 table that was used last
	tableAt uint64
	unpacks Unpack // how packed clusters are
	packed  []byte // the cluster that was unpacked last
	packAt  uint64
}

// What an entry of an L2 table says.
const (
	l2Place      = 1<<56 - 1<<9
	l2Zero       = 1 << 0
	l2Compressed = 1 << 62
	subclusters  = 32
)

// Features that change how a file is read, by their bits.
const (
	q2Dirty   = 1 << 0 // of the counts, which are not read
	q2Data    = 1 << 2
	q2Zstd    = 1 << 3
	q2Wide    = 1 << 4
	q2MaxL1   = 32 << 20
	q2Version = 3
)

// Unpack fills a cluster from what was packed, which may have anything behind its end,
// and fails where that is less.
type Unpack func(cluster, packed []byte) error

// deflated is the Unpack of clusters that are packed as they always were.
func deflated(cluster, packed []byte) error {
	_, err := io.ReadFull(flate.NewReader(bytes.NewReader(packed)), cluster)
	return err
}

// OpenQCOW2 reads the header of a qcow2 file of a size. Wrong ones are
// errs.InvalidImage, and so are those whose clusters are packed with zstd without the
// means to unpack them.
func OpenQCOW2(r io.ReaderAt, size int64, below Layer, zstd Unpack) (*QCOW2, error) {
	f := file{r, size}
	h, err := f.part(0, qcow2Header, "qcow2 header")
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	var features uint64
	if be.Uint32(h[4:]) == q2Version {
		features = be.Uint64(h[72:])
	}
	if err := q2Header(h, features); err != nil {
		return nil, err
	}
	unpacks, err := q2Packing(f, features, zstd)
	if err != nil {
		return nil, err
	}
	q := &QCOW2{
		file: f, below: below, unpacks: unpacks, bits: uint(be.Uint32(h[20:])), wide: features&q2Wide != 0, bytes: int64(be.Uint64(h[24:])),
		l1: int64(be.Uint64(h[40:])), l1n: int64(be.Uint32(h[36:])),
	}
	if q.l1n*8 > q2MaxL1 || q.l1n < up(q.bytes, q.span()) || !f.has(q.l1, q.l1n*8) {
		return nil, refuse("the L1 table lies outside of the file, or is not one of this disk")
	}
	q.table = make([]byte, 1<<q.bits)
	return q, nil
}

// q2Header refuses what is not read.
func q2Header(h []byte, features uint64) error {
	be := binary.BigEndian
	version, bits, bytes := be.Uint32(h[4:]), be.Uint32(h[20:]), be.Uint64(h[24:])
	return none(
		claim{string(h[:4]) != "QFI\xfb" || version < 2 || version > q2Version, refuse("the file is no qcow2 of a version that is known")},
		claim{bits < 9 || bits > 21, refuse("the cluster size of 2^%d bytes is not one that qcow2 has", bits)},
		claim{be.Uint32(h[32:]) != 0, refuse("the disk is encrypted")},
		claim{features&^uint64(q2Dirty|q2Wide|q2Zstd) != 0, refuse("the disk uses features that are not read (bits %#x)", features)},
		claim{bytes == 0 || bytes > uint64(MaxVirtual), refuse("the disk's size of %d bytes is not one a disk can have", bytes)},
	)
}

// q2Packing tells how clusters are packed: the header says so behind what all have, if it
// is not as always.
func q2Packing(f file, features uint64, zstd Unpack) (Unpack, error) {
	if features&q2Zstd == 0 {
		return deflated, nil
	}
	kind, err := f.part(qcow2Header, 1, "qcow2 header")
	switch {
	case err != nil:
		return nil, err
	case kind[0] != 1:
		return nil, refuse("the disk's compression type %d is not one that qcow2 has", kind[0])
	case zstd == nil:
		return nil, refuse("the disk has clusters that are packed with zstd, which is not read here: convert it first (qemu-img convert -O qcow2)")
	}
	return zstd, nil
}

// Bytes implements Layer.
func (q *QCOW2) Bytes() int64 { return q.bytes }

// entry is how long an entry of an L2 table is.
func (q *QCOW2) entry() int64 {
	if q.wide {
		return 16
	}
	return 8
}

// span is how much of the disk one L2 table is about.
func (q *QCOW2) span() int64 { return (1 << q.bits) / q.entry() << q.bits }

// ReadAt implements Layer.
func (q *QCOW2) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > q.bytes {
		return 0, refuse("the reading ends behind the disk")
	}
	unit := int64(1) << q.bits
	if q.wide {
		unit /= subclusters
	}
	for done := 0; done < len(p); {
		n := min(int64(len(p)-done), unit-at%unit)
		if err := q.within(p[done:done+int(n)], at); err != nil {
			return done, err
		}
		done, at = done+int(n), at+n
	}
	return len(p), nil
}

// within reads within one cluster, or subcluster.
func (q *QCOW2) within(p []byte, at int64) error {
	e, bitmap, err := q.look(at)
	if err != nil {
		return err
	}
	inside := at & (1<<q.bits - 1)
	switch q.kind(e, bitmap, inside) {
	case isZero:
		clear(p)
		return nil
	case isBelow:
		return q.fromBelow(p, at)
	case isPacked:
		if err := q.unpack(e); err != nil {
			return err
		}
		copy(p, q.packed[inside:])
		return nil
	default:
		return q.file.full(p, int64(e&l2Place)+inside, "cluster")
	}
}

// What a part of the disk is.
const (
	isData = iota
	isZero
	isBelow
	isPacked
)

func (q *QCOW2) kind(e, bitmap uint64, inside int64) int {
	if e&l2Compressed != 0 {
		return isPacked
	}
	data, zero := e&l2Place != 0, e&l2Zero != 0
	if q.wide {
		sub := uint(inside >> (q.bits - 5))
		data, zero = data && bitmap>>sub&1 != 0, bitmap>>(32+sub)&1 != 0
	}
	switch {
	case zero:
		return isZero
	case data:
		return isData
	default:
		return isBelow
	}
}

// look finds the entry of a byte of the disk; nothing there is an entry of zeros.
func (q *QCOW2) look(at int64) (e, bitmap uint64, err error) {
	var b [8]byte
	if err := q.file.full(b[:], q.l1+at/q.span()*8, "L1 table"); err != nil {
		return 0, 0, err
	}
	where := binary.BigEndian.Uint64(b[:]) & l2Place
	if where == 0 {
		return 0, 0, nil
	}
	if where != q.tableAt {
		q.tableAt = 0
		if err := q.file.full(q.table, int64(where), "L2 table"); err != nil {
			return 0, 0, err
		}
		q.tableAt = where
	}
	i := at % q.span() >> q.bits * q.entry()
	e = binary.BigEndian.Uint64(q.table[i:])
	if q.wide {
		bitmap = binary.BigEndian.Uint64(q.table[i+8:])
	}
	return e, bitmap, nil
}

// fromBelow reads what this layer does not have; behind the end of the one below
// there are zeros.
func (q *QCOW2) fromBelow(p []byte, at int64) error {
	n := int64(0)
	if q.below != nil {
		n = max(0, min(int64(len(p)), q.below.Bytes()-at))
	}
	clear(p[n:])
	if n == 0 {
		return nil
	}
	_, err := q.below.ReadAt(p[:n], at)
	return err
}

// unpack opens a packed cluster.
func (q *QCOW2) unpack(e uint64) error {
	if q.packed != nil && q.packAt == e {
		return nil
	}
	// the place, and behind it how many sectors it goes on for (qcow2.txt)
	x := 62 - (q.bits - 8)
	at := int64(e & (1<<x - 1))
	length := (int64(e>>x&(1<<(q.bits-8)-1))+1)*sector - at%sector
	if at > q.file.size {
		return refuse("a packed cluster lies outside of the file")
	}
	raw := make([]byte, min(length, q.file.size-at)) // the last one may end with the file
	if err := q.file.full(raw, at, "packed cluster"); err != nil {
		return err
	}
	if q.packed == nil {
		q.packed = make([]byte, 1<<q.bits)
	}
	q.packAt = 0
	if err := q.unpacks(q.packed, raw); err != nil {
		return refuse("a packed cluster cannot be unpacked")
	}
	q.packAt = e
	return nil
}

// empty tells how much of the disk from a byte on is surely nothing but zeros: what
// neither this layer nor the one below has a table for.
func (q *QCOW2) empty(at int64) (int64, error) {
	var b [8]byte
	if err := q.file.full(b[:], q.l1+at/q.span()*8, "L1 table"); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint64(b[:])&l2Place != 0 {
		return 0, nil
	}
	end := min((at/q.span()+1)*q.span(), q.bytes)
	switch below := q.below.(type) {
	case nil:
		return end - at, nil
	case *QCOW2:
		if at >= below.bytes {
			return end - at, nil
		}
		n, err := below.empty(at)
		return min(n, end-at), err
	default:
		return max(0, end-max(at, below.Bytes())), nil
	}
}

// skip tells how many whole clusters from a byte on are surely zeros.
func skip(l Layer, at int64) (int64, error) {
	q, ok := l.(*QCOW2)
	if !ok {
		return 0, nil
	}
	n, err := q.empty(at)
	if at+n == q.bytes {
		return n, err
	}
	return n - n%cluster, err
}

// Flatten hands over what a disk holds, as Walk does, whatever layers it lies in.
func Flatten(l Layer, tell func(at int64, p []byte) error) error {
	buf := make([]byte, cluster)
	for at := int64(0); at < l.Bytes(); {
		n, err := skip(l, at)
		if err != nil {
			return err
		}
		if at += n; at == l.Bytes() {
			break
		}
		p := buf[:min(cluster, l.Bytes()-at)]
		if n, err := l.ReadAt(p, at); err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
			return err
		}
		if !bytes.Equal(p, zeros[:len(p)]) {
			if err := tell(at, p); err != nil {
				return err
			}
		}
		at += int64(len(p))
	}
	return nil
}
