// Package sparse is a content with holes on a stream: a row of pieces, each a place (8
// bytes), a length (4 bytes) and as many bytes, in the order of their places. What no
// piece has is zero. It ends with a piece of no length, whose place is the content's
// size.
package sparse

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

const (
	pieceHead = 12
	// MaxPiece bounds a piece, in bytes.
	MaxPiece = 1 << 20
)

// ErrBroken says that what came over a stream is not all of it.
var ErrBroken = errors.New("sparse: the stream broke off, or is damaged")

// Send writes a content of a size in bytes, of which pieces hands over what it holds: of
// each, up to MaxPiece bytes.
func Send(to io.Writer, size int64, pieces func(tell func(at int64, p []byte) error) error) error {
	w := bufio.NewWriterSize(to, MaxPiece)
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

// Receive hands over the pieces of a content of a size in bytes. It fails unless all of
// it came, in order. From a bufio.Reader of MaxPiece bytes or more it takes no byte of
// what follows.
func Receive(from io.Reader, size int64, tell func(at int64, p []byte) error) error {
	r := bufio.NewReaderSize(from, MaxPiece)
	var head [pieceHead]byte
	buf := make([]byte, MaxPiece)
	for end := int64(0); ; {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return errors.Join(ErrBroken, err)
		}
		at, n := binary.BigEndian.Uint64(head[:]), int64(binary.BigEndian.Uint32(head[8:]))
		if n == 0 && at == uint64(size) {
			return nil
		}
		if !fits(at, n, end, size) {
			return ErrBroken
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return errors.Join(ErrBroken, err)
		}
		if err := tell(int64(at), buf[:n]); err != nil {
			return err
		}
		end = int64(at) + n
	}
}

// fits tells whether a piece lies in a content, behind the end of the one before.
func fits(at uint64, n, end, size int64) bool {
	return n > 0 && n <= MaxPiece && at >= uint64(end) && at <= uint64(size) && n <= size-int64(at)
}
