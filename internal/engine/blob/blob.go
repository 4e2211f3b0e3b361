// Package blob keeps the content of images on a server: files named by their
// SHA-256 in one folder. A file becomes visible whole or not at all; what a
// crash left half-written is swept when the folder is opened. Servers of one
// cluster that share the folder share the images: each holds a lock on what it
// is writing, so that one that starts sweeps nothing of the others.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Dir is a folder of blobs. It is safe for concurrent use.
type Dir struct {
	path   string
	builds chan struct{}
}

const tempPrefix = ".upload-"

// Open opens or makes the folder.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of images cannot be made").Because(err)
	}
	d := &Dir{path: path, builds: make(chan struct{}, maxBuilds)}
	return d, d.Sweep()
}

// Sweep removes what processes that are gone have left half-written, of this server
// and of others.
func (d *Dir) Sweep() error {
	half, err := filepath.Glob(filepath.Join(d.path, tempPrefix+"*"))
	if err != nil {
		return errs.New(errs.Internal, "the folder of images cannot be swept").Because(err)
	}
	for _, h := range half {
		sweep(h)
	}
	return nil
}

// sweep removes a half-written file that nobody holds any more.
func sweep(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.Remove(path)
	}
}

// hidden makes a file that is not visible yet, and holds it.
func (d *Dir) hidden() (*os.File, error) {
	for {
		f, err := os.CreateTemp(d.path, tempPrefix+"*")
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if _, gone := os.Stat(f.Name()); err == nil && gone == nil {
			return f, nil
		}
		// another server swept it before we held it
		_ = os.Remove(f.Name())
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
	}
}

// Upload is a file that is not visible yet.
type Upload struct {
	dir    *Dir
	file   *os.File
	SHA256 string
	Size   int64
}

// Receive reads a body to its end into a hidden file, hashing it. The caller
// looks at it (File), then keeps or discards it. limit bounds the body.
func (d *Dir) Receive(ctx context.Context, body io.Reader, limit int64) (*Upload, error) {
	f, err := d.hidden()
	if err != nil {
		return nil, writeError(err)
	}
	u := &Upload{dir: d, file: f}
	sum := sha256.New()
	w := &writer{w: io.MultiWriter(f, sum)}
	u.Size, err = io.Copy(w, &ctxReader{ctx: ctx, r: io.LimitReader(body, limit+1)})
	switch {
	case w.err != nil:
		err = writeError(w.err)
	case err != nil:
		err = errs.New(errs.InvalidField, "the upload broke off after %d bytes", u.Size).Because(err)
	case u.Size > limit:
		err = errs.New(errs.TooLarge, "the upload is larger than %d bytes", limit)
	case u.Size == 0:
		err = errs.New(errs.InvalidImage, "the upload is empty")
	}
	if err != nil {
		u.Discard()
		return nil, err
	}
	u.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return u, nil
}

// File is the content, for looking at.
func (u *Upload) File() io.ReaderAt { return u.file }

// Keep makes the file visible under its hash, durably. Of content that is there
// already only the age is new, so that nobody sweeps it before it is recorded.
// It may be called again.
func (u *Upload) Keep() error { return u.dir.keep(u.file, u.SHA256) }

func (d *Dir) keep(f *os.File, sum string) error {
	if err := f.Sync(); err != nil {
		return writeError(err)
	}
	name := d.name(sum)
	err := os.Link(f.Name(), name)
	if errors.Is(err, fs.ErrExist) {
		err = unix.Utimes(name, nil) // now
	}
	if err != nil {
		return writeError(err)
	}
	folder, err := os.Open(d.path)
	if err != nil {
		return writeError(err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return writeError(err)
	}
	return nil
}

// Discard removes the hidden file. It may be called again, and after Keep.
func (u *Upload) Discard() {
	_ = os.Remove(u.file.Name()) // while we hold it
	_ = u.file.Close()
}

func (d *Dir) name(sum string) string { return filepath.Join(d.path, sum) }

func valid(sum string) error {
	if len(sum) != 2*sha256.Size || strings.Trim(sum, "0123456789abcdef") != "" {
		return errs.New(errs.InvalidField, "an image file is named by its SHA-256")
	}
	return nil
}

// Open opens a blob for reading; errs.NotFound when this server does not have it.
func (d *Dir) Open(sum string) (*os.File, error) {
	if err := valid(sum); err != nil {
		return nil, err
	}
	f, err := os.Open(d.name(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "this server does not have the image file %s: servers of one cluster need a shared folder of images", sum[:12])
	}
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the image file cannot be read").Because(err)
	}
	return f, nil
}

// Remove deletes a blob; an absent one is no error.
func (d *Dir) Remove(sum string) error {
	if err := valid(sum); err != nil {
		return err
	}
	if err := os.Remove(d.name(sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.HostFailure, "the image file cannot be removed").Because(err)
	}
	return nil
}

// List names all blobs.
func (d *Dir) List() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of images cannot be read").Because(err)
	}
	var out []string
	for _, e := range entries {
		if valid(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Age tells when a blob was written, as the file system has it.
func (d *Dir) Age(sum string) (fs.FileInfo, error) { return os.Stat(d.name(sum)) }

func writeError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.New(errs.NoSpace, "the server's folder of images is full: nothing was kept").Because(err)
	}
	return errs.New(errs.HostFailure, "the server's folder of images cannot be written").Because(err)
}

// writer remembers that it was the disk that failed, not the body.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.err = err
	return n, err
}

type ctxReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way to end
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
