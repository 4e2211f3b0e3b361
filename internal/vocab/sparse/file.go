package sparse

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Extents hands over where a file of a size in bytes has data, in order.
func Extents(f *os.File, size int64, each func(begin, end int64) error) error {
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // the rest is a hole
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := each(begin, min(end, size)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// Pieces hands over what a file of a size in bytes holds, for Send. The end of ctx ends
// it with its cause.
func Pieces(ctx context.Context, f *os.File, size int64, tell func(at int64, p []byte) error) error {
	buf := make([]byte, MaxPiece)
	return Extents(f, size, func(begin, end int64) error {
		for begin < end {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-begin)], begin)
			if n == 0 && err != nil {
				if errors.Is(err, io.EOF) {
					return ErrBroken // it is shorter than it was
				}
				return err
			}
			if err := tell(begin, buf[:n]); err != nil {
				return err
			}
			begin += int64(n)
		}
		return nil
	})
}
