package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/turn"
	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	imageSuffix   = ".qcow2"
	wholeSuffix   = ".img" // of images that stand on nothing
	contentSuffix = ".raw" // of volumes that guests only read
	recordSuffix  = ".json"
	lockName      = "lock"
	sector        = 512
)

// Driver keeps volumes in a folder.
type Driver struct {
	path  string
	root  *os.Root
	lock  *os.File
	turns turn.Table
	// content reads a base, in a folder that several drivers have; nil in one of its own
	content Content
	// images end so
	suffix, format string
}

var _ contract.Driver = (*Driver)(nil)

// record is <id>.json.
type record struct {
	SizeBytes int64            `json:"size_bytes"`
	Backing   *hypervisor.File `json:"backing,omitempty"`
	// ReadOnly volumes have their size from their content.
	ReadOnly bool `json:"read_only,omitempty"`
	// From is the name of the file that it was made of, whole.
	From string `json:"from,omitempty"`
}

// Open makes the folder if need be, takes it for this driver alone, and sweeps
// what an interrupted call left.
func Open(path string) (*Driver, error) {
	if !filepath.IsAbs(path) {
		return nil, errs.New(errs.InvalidField, "the folder of volumes is an absolute path")
	}
	// Guests' users may pass through to their own files; nothing can be listed.
	err := os.MkdirAll(path, 0o711) //nolint:gosec // each guest's own user goes through it to its disks, which are 0600
	if err == nil {
		err = os.Chmod(path, 0o711) //nolint:gosec // the umask may have taken the way through from guests' users
	}
	d := &Driver{path: path, suffix: imageSuffix, format: "qcow2"}
	if err == nil {
		d.root, err = os.OpenRoot(path)
	}
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of volumes cannot be opened").Because(err)
	}
	if err := d.takeLock(); err != nil {
		_ = d.root.Close()
		return nil, err
	}
	if err := d.sweep(); err != nil {
		_ = d.Close()
		return nil, errs.New(errs.HostFailure, "the folder of volumes cannot be swept").Because(err)
	}
	return d, nil
}

func (d *Driver) takeLock() error {
	var err error
	if d.lock, err = d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return errs.New(errs.HostFailure, "the lock of the folder of volumes cannot be opened").Because(err)
	}
	if err := durable.Hold(d.lock, clock.System{}); err != nil {
		_ = d.lock.Close()
		return errs.New(errs.InUse, "another agent uses this folder of volumes").Because(err)
	}
	return nil
}

// Close lets another driver have the folder.
func (d *Driver) Close() error {
	err := d.root.Close()
	if d.lock != nil {
		err = errors.Join(d.lock.Close(), err)
	}
	return err
}

// sweep removes temporaries and images that no record names.
func (d *Driver) sweep() error {
	if err := durable.Sweep(d.root); err != nil {
		return err
	}
	for _, suffix := range []string{imageSuffix, contentSuffix} {
		if err := d.sweepUnnamed(suffix); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) sweepUnnamed(suffix string) error {
	names, err := d.names(suffix)
	if err != nil {
		return err
	}
	for _, v := range names {
		if _, err := d.root.Stat(v.String() + recordSuffix); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := d.root.Remove(v.String() + suffix); err != nil {
			return err
		}
	}
	return nil
}

// names lists the ids that have a file with the suffix, in order.
func (d *Driver) names(suffix string) ([]id.ID, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var out []id.ID
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if v, err := id.Parse(name); ok && err == nil {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b id.ID) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// Capabilities implements contract.Driver.
func (d *Driver) Capabilities() contract.Capabilities {
	return contract.Capabilities{CopyOnWrite: d.content == nil, Thin: true, Content: true}
}

// Create implements contract.Driver.
func (d *Driver) Create(ctx context.Context, s contract.Spec) (contract.Volume, error) {
	want, err := d.check(s)
	if err != nil {
		return contract.Volume{}, err
	}
	leave, err := d.turns.Take(ctx, s.ID)
	if err != nil {
		return contract.Volume{}, err
	}
	defer leave()
	have, err := d.read(s.ID)
	switch {
	case err == nil && have.same(want):
		return d.volume(s.ID, have)
	case err == nil:
		return contract.Volume{}, errs.New(errs.AlreadyExists, "volume %s exists with another size or base", s.ID)
	case !errors.Is(err, fs.ErrNotExist):
		return contract.Volume{}, broken(s.ID, err)
	}
	if err := checkBase(s.Base); err != nil {
		return contract.Volume{}, err
	}
	if err := ctx.Err(); err != nil {
		return contract.Volume{}, errs.New(errs.Cancelled, "volume %s was not made: the call was cancelled", s.ID).Because(err)
	}
	if err := d.make(ctx, s, want); err != nil {
		return contract.Volume{}, makeError(s.ID, err)
	}
	return d.volume(s.ID, want)
}

func makeError(v id.ID, err error) error {
	var known *errs.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, unix.EFBIG):
		return errs.New(errs.OutOfRange, "volume %s is larger than a file may be in that place", v).Because(err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errs.New(errs.NoSpace, "there is no space left for volume %s on this node", v).Because(err)
	}
	return errs.New(errs.HostFailure, "volume %s cannot be made", v).Because(err)
}

func check(s contract.Spec) (record, error) {
	r := record{SizeBytes: s.SizeBytes}
	switch {
	case s.ID == id.Nil:
		return r, errs.New(errs.InvalidID, "a volume needs an id")
	case checkSize(s.SizeBytes) != nil:
		return r, checkSize(s.SizeBytes)
	case s.Base == nil:
		return r, nil
	case s.SizeBytes < s.Base.VirtualSize:
		return r, errs.New(errs.InvalidSize, "%d bytes: the volume must hold its image of %d bytes", s.SizeBytes, s.Base.VirtualSize)
	}
	f := s.Base.File
	r.Backing = &f
	return r, checkForm(f)
}

func checkSize(n int64) error {
	if n <= 0 || n%sector != 0 || n > maxSize {
		return errs.New(errs.InvalidSize, "%d bytes: a volume has a multiple of %d bytes, at most 64 TiB", n, sector)
	}
	return nil
}

func checkForm(base hypervisor.File) error {
	if base.Format != "qcow2" && base.Format != "raw" {
		return errs.New(errs.InvalidField, "%q is not the format of a base image: qcow2 or raw", errs.Clip(base.Format))
	}
	if !filepath.IsAbs(base.Path) || strings.ContainsRune(base.Path, 0) {
		return errs.New(errs.InvalidField, "the path of a base image is absolute")
	}
	return nil
}

func checkBase(b *contract.Base) error {
	if b == nil {
		return nil
	}
	info, err := os.Stat(b.File.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errs.New(errs.NotFound, "the base image is not on this node").Because(err)
	case err != nil:
		return errs.New(errs.HostFailure, "the base image cannot be examined").Because(err)
	case !info.Mode().IsRegular():
		return errs.New(errs.InvalidField, "the base image is not a regular file")
	}
	return nil
}

func (d *Driver) make(ctx context.Context, s contract.Spec, r record) error {
	if d.content != nil {
		return d.makeOf(s.ID, r, func(f *os.File) error { return d.whole(ctx, f, s) })
	}
	return d.makeOf(s.ID, r, func(f *os.File) error { return writeEmpty(f, r.SizeBytes, r.Backing) })
}

// makeOf writes the image and then the record that makes it a volume.
func (d *Driver) makeOf(v id.ID, r record, fill func(*os.File) error) (err error) {
	tmp, name := v.String()+d.suffix+durable.Suffix, v.String()+d.suffix
	f, err := d.root.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = d.root.Remove(tmp)
			_ = d.root.Remove(name)
		}
	}()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.root.Rename(tmp, name)
	}
	if err != nil {
		return err
	}
	return durable.WriteJSON(d.root, v.String()+recordSuffix, r)
}

func (r record) same(o record) bool {
	if r.ReadOnly != o.ReadOnly || r.From != o.From || r.SizeBytes != o.SizeBytes || (r.Backing == nil) != (o.Backing == nil) {
		return false
	}
	return r.Backing == nil || *r.Backing == *o.Backing
}

func (d *Driver) read(v id.ID) (record, error) {
	var r record
	err := durable.ReadJSON(d.root, v.String()+recordSuffix, &r)
	return r, err
}

// known reads the record of a volume that must be there.
func (d *Driver) known(v id.ID) (record, error) {
	r, err := d.read(v)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, errs.New(errs.NotFound, "volume %s is not on this node", v)
	case err != nil:
		return r, broken(v, err)
	}
	return r, nil
}

func broken(v id.ID, err error) error {
	return errs.New(errs.HostFailure, "volume %s cannot be read on this node", v).Because(err)
}

// volume describes a volume by its record and the space its image takes.
func (d *Driver) volume(v id.ID, r record) (contract.Volume, error) {
	if r.ReadOnly {
		return d.contentOf(v)
	}
	info, err := d.root.Lstat(v.String() + d.suffix)
	if err != nil {
		return contract.Volume{}, broken(v, err)
	}
	out := contract.Volume{
		ID: v, SizeBytes: r.SizeBytes, Backing: r.Backing,
		File: hypervisor.File{Path: filepath.Join(d.path, v.String()+d.suffix), Format: d.format},
	}
	out.AllocatedBytes = allocated(info)
	return out, nil
}

// allocated is what a file occupies.
func allocated(info fs.FileInfo) int64 {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return s.Blocks * sector // st_blocks counts these, whatever the file system
}

// Grow implements contract.Driver. The image first, then the record: an image
// that is larger than its record is grown again, to no effect.
func (d *Driver) Grow(ctx context.Context, v id.ID, size int64, resize func(context.Context) error) (contract.Volume, error) {
	leave, err := d.turns.Take(ctx, v)
	if err != nil {
		return contract.Volume{}, err
	}
	defer leave()
	r, err := d.writable(v, "grown")
	if err != nil {
		return contract.Volume{}, err
	}
	if err := checkSize(size); err != nil {
		return contract.Volume{}, err
	}
	if size < r.SizeBytes {
		return contract.Volume{}, errs.New(errs.ShrinkNotAllowed, "volume %s has %d bytes and cannot have %d: what lies beyond would be lost", v, r.SizeBytes, size)
	}
	if resize == nil {
		resize = func(context.Context) error { return d.resize(v, size) }
	}
	if size > r.SizeBytes {
		if err := resize(ctx); err != nil {
			return contract.Volume{}, err
		}
		r.SizeBytes = size
		if err := durable.WriteJSON(d.root, v.String()+recordSuffix, r); err != nil {
			return contract.Volume{}, makeError(v, err)
		}
	}
	return d.volume(v, r)
}

// resize writes the new size into an image that nobody has open.
func (d *Driver) resize(v id.ID, size int64) error {
	f, err := d.root.OpenFile(v.String()+d.suffix, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return broken(v, err)
	}
	if d.content != nil {
		err = f.Truncate(size)
	} else {
		err = writeSize(f, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case errors.Is(err, errL1):
		return errs.New(errs.Unsupported, "volume %s cannot grow that far: %v; make a new, larger disk and copy", v, err)
	case err != nil:
		return makeError(v, err)
	}
	return nil
}

// Delete implements contract.Driver.
func (d *Driver) Delete(ctx context.Context, v id.ID) error {
	leave, err := d.turns.Take(ctx, v)
	if err != nil {
		return err
	}
	defer leave()
	// The record's end reaches the disk before the image's.
	err = d.remove(v, recordSuffix)
	if err == nil {
		err = d.remove(v, d.suffix, contentSuffix)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "volume %s cannot be removed", v).Because(err)
	}
	return nil
}

// remove removes files of a volume, durably; absent ones are no error.
func (d *Driver) remove(v id.ID, suffixes ...string) error {
	for _, suffix := range suffixes {
		if err := d.root.Remove(v.String() + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.Sync(d.root)
}

// Inspect implements contract.Driver.
func (d *Driver) Inspect(ctx context.Context, v id.ID) (contract.Volume, error) {
	r, err := d.known(v)
	if err != nil {
		return contract.Volume{}, err
	}
	return d.volume(v, r)
}

// List implements contract.Driver.
func (d *Driver) List(ctx context.Context) ([]contract.Volume, error) {
	names, err := d.names(recordSuffix)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of volumes cannot be read").Because(err)
	}
	out := make([]contract.Volume, 0, len(names))
	for _, v := range names {
		vol, err := d.Inspect(ctx, v)
		if errs.Is(err, errs.NotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, vol)
	}
	return out, nil
}

// Usage implements contract.Driver.
func (d *Driver) Usage(context.Context) (contract.Usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.path, &s); err != nil {
		return contract.Usage{}, errs.New(errs.HostFailure, "the space for volumes cannot be measured").Because(err)
	}
	return contract.Usage{TotalBytes: int64(s.Blocks) * s.Bsize, FreeBytes: int64(s.Bavail) * s.Bsize}, nil
}
