package disk

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Of the qcow2 that is written: version 3, clusters of 64 KiB, counts of 16 bits.
const (
	clusterBits = 16
	cluster     = 1 << clusterBits
	perL2       = cluster / 8
	perBlock    = cluster / 2
	copied      = 1 << 63 // a cluster that nobody else has
	qcow2Header = 104
)

// Writer writes a qcow2 file of a disk that is told in order, with nothing in it
// twice and no zeros: the same disk always gives the same bytes.
type Writer struct {
	out  io.WriterAt
	size int64
	next int64 // the first cluster that is not taken
	l1   []uint64
	l2   []byte // of the part of the disk that is told now
	part int64  // which that is; -1 for none
	buf  []byte // the cluster that is told now
	at   int64  // which that is; -1 for none
	last int64  // the end of what was told
	// limit is how long the file may get.
	limit int64
}

// maxWritten is the most that an image's file has, in bytes.
const maxWritten = 2 * unit.TiB

// NewWriter begins a disk of a size in bytes, a multiple of 512. Nothing is good
// before Close.
func NewWriter(out io.WriterAt, size int64) *Writer {
	return &Writer{
		out: out, size: size, next: 1, part: -1, at: -1, limit: maxWritten,
		l1: make([]uint64, up(size, cluster*perL2)), l2: make([]byte, cluster), buf: make([]byte, cluster),
	}
}

// Tell takes what the disk holds at a byte, behind all that was told before.
func (w *Writer) Tell(at int64, p []byte) error {
	if at < w.last || at+int64(len(p)) > w.size {
		return refuse("the disk's content does not come in order, or goes on behind its end")
	}
	w.last = at + int64(len(p))
	for len(p) > 0 {
		if n := at / cluster; n != w.at {
			if err := w.flush(); err != nil {
				return err
			}
			w.at = n
		}
		n := copy(w.buf[at%cluster:], p)
		at, p = at+int64(n), p[n:]
	}
	return nil
}

var zeros [cluster]byte

// flush writes the cluster that was told, unless it is zero.
func (w *Writer) flush() error {
	if w.at < 0 || bytes.Equal(w.buf, zeros[:]) {
		return nil
	}
	if part := w.at / perL2; part != w.part {
		if err := w.flushTable(); err != nil {
			return err
		}
		w.part = part
	}
	where, err := w.append(w.buf)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(w.l2[w.at%perL2*8:], where|copied)
	clear(w.buf)
	return nil
}

// flushTable writes the table of the part of the disk that was told.
func (w *Writer) flushTable() error {
	if w.part < 0 {
		return nil
	}
	where, err := w.append(w.l2)
	w.l1[w.part] = where | copied
	clear(w.l2)
	return err
}

// append writes bytes to clusters of their own, and gives where.
func (w *Writer) append(p []byte) (uint64, error) {
	at := w.next * cluster
	w.next += up(int64(len(p)), cluster)
	if w.next*cluster > w.limit {
		return 0, errs.New(errs.TooLarge, "the disk holds more than %s: no image's file is larger", unit.FormatBytes(w.limit))
	}
	_, err := w.out.WriteAt(p, at)
	return uint64(at), err
}

// Close writes what remains, the tables and the header, and gives the file's length
// in bytes.
func (w *Writer) Close() (int64, error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.flushTable(); err != nil {
		return 0, err
	}
	var l1 []byte
	for _, e := range w.l1 {
		l1 = binary.BigEndian.AppendUint64(l1, e)
	}
	// whole clusters, so that the file has no ragged end
	l1At, err := w.append(padded(l1))
	if err != nil {
		return 0, err
	}
	tableAt, tables, err := w.counts()
	if err != nil {
		return 0, err
	}
	if _, err := w.out.WriteAt(w.header(l1At, tableAt, tables), 0); err != nil {
		return 0, err
	}
	return w.next * cluster, nil
}

func padded(p []byte) []byte {
	return append(p, make([]byte, up(int64(len(p)), cluster)*cluster-int64(len(p)))...)
}

// counts writes the counts of all clusters, their own among them: each is used once.
func (w *Writer) counts() (at uint64, tables int64, err error) {
	used, blocks := w.next, int64(0)
	for {
		n := up(used, perBlock)
		t := up(n*8, cluster)
		if n == blocks && t == tables {
			break
		}
		blocks, tables = n, t
		used = w.next + blocks + tables
	}
	var table []byte
	for n := range blocks {
		block := make([]byte, cluster)
		for i := range min(perBlock, used-n*perBlock) {
			block[2*i+1] = 1
		}
		where, err := w.append(block)
		if err != nil {
			return 0, 0, err
		}
		table = binary.BigEndian.AppendUint64(table, where)
	}
	at, err = w.append(padded(table))
	return at, tables, err
}

// header is a cluster, with the extension that ends them.
func (w *Writer) header(l1, table uint64, tables int64) []byte {
	b := make([]byte, cluster)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(w.size))
	be.PutUint32(b[36:], uint32(len(w.l1)))
	be.PutUint64(b[40:], l1)
	be.PutUint64(b[48:], table)
	be.PutUint32(b[56:], uint32(tables))
	be.PutUint32(b[96:], 4) // counts of 2^4 bits
	be.PutUint32(b[100:], qcow2Header)
	return b
}

// Convert writes a disk as qcow2, and gives the file's length. done, if not nil, is
// told how far it is, in bytes of the disk; an error of it ends the conversion.
func (d *Disk) Convert(out io.WriterAt, done func(at int64) error) (int64, error) {
	w := NewWriter(out, d.Bytes)
	err := d.Walk(func(at int64, p []byte) error {
		if done != nil {
			if err := done(at); err != nil {
				return err
			}
		}
		return w.Tell(at, p)
	})
	if err != nil {
		return 0, err
	}
	return w.Close()
}
