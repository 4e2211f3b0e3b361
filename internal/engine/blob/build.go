package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// maxBuilds is how many files are built in a folder at a time: each keeps a disk
// busy by itself.
const maxBuilds = 2

// Build makes a hidden file of what write puts where it likes, then hashes it: the
// caller keeps or discards it. hashing, if not nil, is told how far that is, in
// bytes. It waits for its turn, and ends with ctx. Errors of write are given as they
// are; those of the folder are errs.NoSpace or errs.HostFailure.
func (d *Dir) Build(ctx context.Context, write func(io.WriterAt) error, hashing func(at int64) error) (*Upload, error) {
	select {
	case d.builds <- struct{}{}:
		defer func() { <-d.builds }()
	case <-ctx.Done():
		return nil, errs.New(errs.Cancelled, "it ended before its turn came").Because(ctx.Err())
	}
	f, err := d.hidden()
	if err != nil {
		return nil, writeError(err)
	}
	u := &Upload{dir: d, file: f}
	if err := u.build(ctx, write, hashing); err != nil {
		u.Discard()
		return nil, err
	}
	return u, nil
}

func (u *Upload) build(ctx context.Context, write func(io.WriterAt) error, hashing func(at int64) error) error {
	w := &writerAt{ctx: ctx, f: u.file}
	if err := write(w); w.err != nil {
		return w.err
	} else if err != nil {
		return err
	}
	info, err := u.file.Stat()
	if err != nil {
		return writeError(err)
	}
	u.Size = info.Size()
	sum := sha256.New()
	in := io.NewSectionReader(u.file, 0, u.Size)
	for at := int64(0); at < u.Size; {
		if err := ctx.Err(); err != nil {
			return errs.New(errs.Cancelled, "it was cancelled").Because(err)
		}
		n, err := io.CopyN(sum, in, min(8*partBuffer, u.Size-at))
		if err != nil {
			return writeError(err)
		}
		if at += n; hashing != nil {
			if err := hashing(at); err != nil {
				return err
			}
		}
	}
	u.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// writerAt remembers that it was the disk that failed, or the caller that went.
type writerAt struct {
	ctx context.Context //nolint:containedctx // io.WriterAt has no other way to end
	f   *os.File
	err error
}

// WriteAt implements io.WriterAt.
func (w *writerAt) WriteAt(p []byte, at int64) (int, error) {
	if err := w.ctx.Err(); err != nil {
		w.err = errs.New(errs.Cancelled, "it was cancelled").Because(err)
		return 0, w.err
	}
	n, err := w.f.WriteAt(p, at)
	if err != nil {
		w.err = writeError(err)
	}
	return n, err
}
