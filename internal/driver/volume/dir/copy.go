package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
)

// Copy implements contract.Driver.
func (d *Driver) Copy(ctx context.Context, v, from id.ID) (contract.Volume, error) {
	if v == id.Nil || v == from {
		return contract.Volume{}, errs.New(errs.InvalidID, "a copy needs an id of its own")
	}
	leave, err := d.turns.Take(ctx, v)
	if err != nil {
		return contract.Volume{}, err
	}
	defer leave()
	want, err := d.writable(from, "copied")
	if err != nil {
		return contract.Volume{}, err
	}
	have, err := d.read(v)
	switch {
	case err == nil && have.same(want):
		return d.volume(v, have)
	case err == nil:
		return contract.Volume{}, errs.New(errs.AlreadyExists, "volume %s exists with another size or base", v)
	case !errors.Is(err, fs.ErrNotExist):
		return contract.Volume{}, broken(v, err)
	}
	err = d.makeOf(v, want, func(dst *os.File) error { return d.fill(ctx, dst, from) })
	if err != nil {
		return contract.Volume{}, makeError(v, err)
	}
	return d.volume(v, want)
}

// fill copies a volume's image into an empty file.
func (d *Driver) fill(ctx context.Context, dst *os.File, from id.ID) error {
	src, err := d.root.OpenFile(from.String()+d.suffix, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	if err := ctx.Err(); err != nil {
		return cancelled(err)
	}
	// blocks are shared where the file system can (Btrfs, XFS, ...)
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	return copySparse(ctx, dst, src)
}

func cancelled(err error) error {
	return errs.New(errs.Cancelled, "the copy was not made: the call was cancelled").Because(err)
}

// chunk is how much is copied between two looks at the context.
const chunk = 16 << 20

// copySparse copies what is not a hole.
func copySparse(ctx context.Context, dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if err := dst.Truncate(size); err != nil {
		return err
	}
	return sparse.Extents(src, size, func(begin, end int64) error { return copyRange(ctx, dst, src, begin, end) })
}

func copyRange(ctx context.Context, dst, src *os.File, begin, end int64) error {
	for begin < end {
		if err := ctx.Err(); err != nil {
			return cancelled(err)
		}
		n := min(chunk, end-begin)
		if _, err := io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, n)); err != nil {
			return err
		}
		begin += n
	}
	return nil
}
