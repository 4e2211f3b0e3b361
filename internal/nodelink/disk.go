package nodelink

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// A disk on a bulk stream is a row of pieces, each a place (8 bytes), a length (4
// bytes) and as many bytes, in the order of their places. What no piece has is zero.
// It ends with a piece of no length, whose place is the disk's size.
const (
	pieceHead = 12
	maxPiece  = 1 << 20
)

// errNoDisk says that what came over a stream is no disk, or not all of one.
var errNoDisk = errors.New("nodelink: the disk's stream broke off, or is damaged")

// SendDisk writes a disk of a size in bytes, of which pieces hands over what it holds.
func SendDisk(to io.Writer, size int64, pieces func(tell func(at int64, p []byte) error) error) error {
	w := bufio.NewWriterSize(to, maxPiece)
	send := func(at int64, p []byte) error {
		head := binary.BigEndian.AppendUint64(nil, uint64(at))
		if _, err := w.Write(binary.BigEndian.AppendUint32(head, uint32(len(p)))); err != nil {
			return err
		}
		_, err := w.Write(p)
		return err
	}
	if err := pieces(send); err != nil {
		return err
	}
	if err := send(size, nil); err != nil {
		return err
	}
	return w.Flush()
}

// ReceiveDisk hands over the pieces of a disk of a size in bytes. It fails unless all
// of it came, in order.
func ReceiveDisk(from io.Reader, size int64, tell func(at int64, p []byte) error) error {
	r := bufio.NewReaderSize(from, maxPiece)
	var head [pieceHead]byte
	buf := make([]byte, maxPiece)
	for end := int64(0); ; {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return errors.Join(errNoDisk, err)
		}
		at, n := binary.BigEndian.Uint64(head[:]), int64(binary.BigEndian.Uint32(head[8:]))
		if n == 0 && at == uint64(size) {
			return nil
		}
		if !fits(at, n, end, size) {
			return errNoDisk
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return errors.Join(errNoDisk, err)
		}
		if err := tell(int64(at), buf[:n]); err != nil {
			return err
		}
		end = int64(at) + n
	}
}

// fits tells whether a piece lies in a disk, behind the end of the one before.
func fits(at uint64, n, end, size int64) bool {
	return n > 0 && n <= maxPiece && at >= uint64(end) && at <= uint64(size) && n <= size-int64(at)
}
