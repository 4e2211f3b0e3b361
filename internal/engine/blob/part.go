package blob

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// partPrefix marks the hidden files of uploads that can be resumed. Unlike those
// of Receive they outlive the process: whoever keeps their record removes them.
const partPrefix = ".part-"

// partBuffer is how much of a body is taken at a time.
const partBuffer = 1 << 20

// Part is a file that arrives in pieces and is not visible yet. It is held, by
// its lock, against every other process that shares the folder.
type Part struct {
	dir  *Dir
	file *os.File
	sum  hash.Hash
	// Offset is how many bytes there are, all of them hashed.
	Offset int64
}

func (d *Dir) part(u id.ID) string { return filepath.Join(d.path, partPrefix+u.String()) }

// OpenPart holds the part of an upload, and makes it if there is none and create
// says so. errs.NotFound when this folder does not have it, errs.Conflict while
// another connection, of any server, holds it.
func (d *Dir) OpenPart(u id.ID, create bool) (*Part, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(d.part(u), flags, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errs.New(errs.NotFound, "this server does not have what arrived of the upload")
	case err != nil:
		return nil, writeError(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errs.New(errs.Conflict, "another connection is sending this upload: wait until it ends, a minute at most")
		}
		return nil, writeError(err)
	}
	if _, err := os.Stat(d.part(u)); err != nil {
		_ = f.Close() // it was removed before we held it
		return nil, errs.New(errs.NotFound, "the upload was removed").Because(err)
	}
	return &Part{dir: d, file: f, sum: sha256.New()}, nil
}

// Resume goes back to a byte that was reached before; state is what State gave
// there. Without a state that can be used, what is there is read and hashed
// again. errs.NotFound when the part is shorter.
func (p *Part) Resume(offset int64, state []byte) error {
	info, err := p.file.Stat()
	if err != nil {
		return writeError(err)
	}
	if info.Size() < offset {
		return errs.New(errs.NotFound, "of the %d bytes that arrived of the upload %d are left", offset, info.Size())
	}
	if err := p.file.Truncate(offset); err != nil {
		return writeError(err)
	}
	p.Offset = offset
	p.sum.Reset()
	if offset == 0 || p.restore(state) {
		return nil
	}
	p.sum.Reset()
	if _, err := io.Copy(p.sum, io.NewSectionReader(p.file, 0, offset)); err != nil {
		return writeError(err)
	}
	return nil
}

func (p *Part) restore(state []byte) bool {
	u, ok := p.sum.(encoding.BinaryUnmarshaler)
	return ok && len(state) > 0 && u.UnmarshalBinary(state) == nil
}

// State makes what arrived durable and gives the hash's inner state there.
func (p *Part) State() ([]byte, error) {
	if err := p.file.Sync(); err != nil {
		return nil, writeError(err)
	}
	m, ok := p.sum.(encoding.BinaryMarshaler)
	if !ok {
		return nil, nil // Resume reads it again
	}
	state, err := m.MarshalBinary()
	if err != nil {
		return nil, errs.New(errs.Internal, "the hash's state cannot be kept").Because(err)
	}
	return state, nil
}

// Append adds up to limit bytes of a body. When it ends early, by the body, the
// disk or ctx, what was added stays: Offset says how far it came. Of a body that
// breaks off the error is errs.InvalidField.
func (p *Part) Append(ctx context.Context, body io.Reader, limit int64) (ended bool, err error) {
	buf := make([]byte, min(limit, partBuffer))
	for limit > 0 {
		if err := ctx.Err(); err != nil {
			return false, errs.New(errs.InvalidField, "the upload was broken off at byte %d: go on from there", p.Offset).Because(err)
		}
		n, err := body.Read(buf[:min(limit, int64(len(buf)))])
		if n > 0 {
			if err := p.add(buf[:n]); err != nil {
				return false, err
			}
			limit -= int64(n)
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, errs.New(errs.InvalidField, "the upload broke off at byte %d: go on from there", p.Offset).Because(err)
		}
	}
	return false, nil
}

// add writes and then hashes, so that neither is ahead of the other.
func (p *Part) add(b []byte) error {
	if _, err := p.file.WriteAt(b, p.Offset); err != nil {
		_ = p.file.Truncate(p.Offset)
		return writeError(err)
	}
	p.sum.Write(b)
	p.Offset += int64(len(b))
	return nil
}

// SHA256 is of what arrived.
func (p *Part) SHA256() string { return hex.EncodeToString(p.sum.Sum(nil)) }

// File is the content, for looking at.
func (p *Part) File() io.ReaderAt { return p.file }

// Keep makes the file visible under its hash, durably; see Upload.Keep.
func (p *Part) Keep() error { return p.dir.keep(p.file, p.SHA256()) }

// Close lets go of the part, which stays.
func (p *Part) Close() { _ = p.file.Close() }

// Discard removes the part. It may be called again, and after Keep.
func (p *Part) Discard() {
	_ = os.Remove(p.file.Name()) // while we hold it
	_ = p.file.Close()
}

// Parts lists the uploads that have a part here.
func (d *Dir) Parts() ([]id.ID, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of images cannot be read").Because(err)
	}
	var out []id.ID
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), partPrefix)
		if u, err := id.Parse(name); ok && err == nil {
			out = append(out, u)
		}
	}
	return out, nil
}

// RemovePart removes a part that nobody holds; removed is false if there is none
// or somebody does.
func (d *Dir) RemovePart(u id.ID) (removed bool, err error) {
	p, err := d.OpenPart(u, false)
	switch {
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Conflict):
		return false, nil
	case err != nil:
		return false, err
	}
	p.Discard()
	return true, nil
}
