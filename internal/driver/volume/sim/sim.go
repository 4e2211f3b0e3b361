// Package sim keeps volumes that hold nothing: one small file each, so that
// what exists is still read from a disk and not from our own memory. It ships
// in the binary, for simulated nodes.
package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	// maxSize is that of real volumes.
	maxSize = 64 << 40
	sector  = 512
	// unfinished ends the name of a file that is being written.
	unfinished = ".new"
)

// Driver keeps simulated volumes in a folder.
type Driver struct {
	dir   string
	total int64
	mu    sync.Mutex
	fail  map[string]error
}

var _ contract.Driver = (*Driver)(nil)

// Open uses a folder; total is the capacity it claims, in bytes.
func Open(dir string, total int64) (*Driver, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of volumes cannot be made").Because(err)
	}
	half, err := filepath.Glob(filepath.Join(dir, "*"+unfinished))
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of volumes cannot be swept").Because(err)
	}
	for _, h := range half {
		_ = os.Remove(h)
	}
	return &Driver{dir: dir, total: total, fail: map[string]error{}}, nil
}

// Fail makes the named method ("create", "copy", "grow", "write", "send", "receive", "delete") return an error until it is
// set to nil.
func (d *Driver) Fail(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[method] = err
}

func (d *Driver) path(v id.ID) string { return filepath.Join(d.dir, v.String()) }

// Capabilities implements contract.Driver.
func (d *Driver) Capabilities() contract.Capabilities {
	return contract.Capabilities{CopyOnWrite: true, Thin: true}
}

// Create implements contract.Driver.
func (d *Driver) Create(ctx context.Context, s contract.Spec) (contract.Volume, error) {
	if err := check(s); err != nil {
		return contract.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(ctx, "create"); err != nil {
		return contract.Volume{}, err
	}
	want := volume(s, d.path(s.ID))
	if have, err := d.read(s.ID); !errs.Is(err, errs.NotFound) {
		return have, sameVolume(have, want, err)
	}
	return want, d.write(want)
}

// begin refuses a call that is to fail, and one whose caller has gone.
func (d *Driver) begin(ctx context.Context, method string) error {
	if err := d.fail[method]; err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errs.New(errs.Cancelled, "the call was cancelled").Because(err)
	}
	return nil
}

func (d *Driver) write(v contract.Volume) error { return d.writeFile(v.ID, document(v)) }

// writeFile makes the file visible whole or not at all. It does not wait for the disk:
// of a machine that loses its power, simulated nodes are gone too.
func (d *Driver) writeFile(v id.ID, f file) error {
	next := d.path(v) + unfinished
	b, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(next, b, 0o600)
	}
	if err == nil {
		err = os.Rename(next, d.path(v))
	}
	if err != nil {
		_ = os.Remove(next)
		return errs.New(errs.HostFailure, "the volume cannot be written").Because(err)
	}
	return nil
}

// file is what a volume's file holds.
type file struct {
	SizeBytes  int64  `json:"size_bytes"`
	BasePath   string `json:"base_path,omitempty"`
	BaseFormat string `json:"base_format,omitempty"`
	// ContentSHA256 is of what guests read, of a volume that Write made.
	ContentSHA256 string `json:"content_sha256,omitempty"`
}

func document(v contract.Volume) file {
	f := file{SizeBytes: v.SizeBytes}
	if v.Backing != nil {
		f.BasePath, f.BaseFormat = v.Backing.Path, v.Backing.Format
	}
	return f
}

func check(s contract.Spec) error {
	switch {
	case s.ID == id.Nil:
		return errs.New(errs.InvalidID, "a volume needs an id")
	case checkSize(s.SizeBytes) != nil:
		return checkSize(s.SizeBytes)
	case s.Base == nil:
		return nil
	case s.SizeBytes < s.Base.VirtualSize:
		return errs.New(errs.InvalidSize, "%d bytes: the volume must hold its image of %d bytes", s.SizeBytes, s.Base.VirtualSize)
	case s.Base.File.Format != "qcow2" && s.Base.File.Format != "raw":
		return errs.New(errs.InvalidField, "%q is not the format of a base image: qcow2 or raw", errs.Clip(s.Base.File.Format))
	case !filepath.IsAbs(s.Base.File.Path):
		return errs.New(errs.InvalidField, "the path of a base image is absolute")
	}
	return nil
}

func checkSize(n int64) error {
	if n <= 0 || n%sector != 0 || n > maxSize {
		return errs.New(errs.InvalidSize, "%d bytes: a volume has a multiple of %d bytes, at most 64 TiB", n, sector)
	}
	return nil
}

// sameVolume tells whether the volume there is, or why it cannot be read, answers for
// the one that is wanted.
func sameVolume(have, want contract.Volume, err error) error {
	switch {
	case err != nil:
		return err
	case have.ReadOnly, have.SizeBytes != want.SizeBytes, (have.Backing == nil) != (want.Backing == nil),
		have.Backing != nil && *have.Backing != *want.Backing:
		return errs.New(errs.AlreadyExists, "volume %s exists with another size or base", want.ID)
	}
	return nil
}

func volume(s contract.Spec, path string) contract.Volume {
	v := contract.Volume{ID: s.ID, SizeBytes: s.SizeBytes, File: hypervisor.File{Path: path, Format: "qcow2"}}
	if s.Base != nil {
		base := s.Base.File
		v.Backing = &base
	}
	return v
}

func (d *Driver) readFile(v id.ID) (doc file, err error) {
	b, err := os.ReadFile(d.path(v))
	if errors.Is(err, fs.ErrNotExist) {
		return doc, errs.New(errs.NotFound, "there is no volume %s on this node", v)
	}
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return doc, errs.New(errs.HostFailure, "the volume cannot be read").Because(err)
	}
	return doc, nil
}

func (d *Driver) read(v id.ID) (contract.Volume, error) {
	doc, err := d.readFile(v)
	if err != nil {
		return contract.Volume{}, err
	}
	out := contract.Volume{ID: v, SizeBytes: doc.SizeBytes, File: hypervisor.File{Path: d.path(v), Format: "qcow2"}}
	if doc.ContentSHA256 != "" {
		out.ReadOnly, out.File.Format = true, "raw"
	}
	if doc.BasePath != "" {
		out.Backing = &hypervisor.File{Path: doc.BasePath, Format: doc.BaseFormat}
	}
	return out, nil
}

// Copy implements contract.Driver.
func (d *Driver) Copy(ctx context.Context, v, from id.ID) (contract.Volume, error) {
	if v == id.Nil || v == from {
		return contract.Volume{}, errs.New(errs.InvalidID, "a copy needs an id of its own")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(ctx, "copy"); err != nil {
		return contract.Volume{}, err
	}
	want, err := d.writable(from, "copied")
	if err != nil {
		return contract.Volume{}, err
	}
	want.ID, want.File.Path = v, d.path(v)
	if have, err := d.read(v); !errs.Is(err, errs.NotFound) {
		return have, sameVolume(have, want, err)
	}
	return want, d.write(want)
}

// Grow implements contract.Driver.
func (d *Driver) Grow(ctx context.Context, v id.ID, size int64, resize func(context.Context) error) (contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(ctx, "grow"); err != nil {
		return contract.Volume{}, err
	}
	have, err := d.writable(v, "grown")
	switch {
	case err != nil:
		return contract.Volume{}, err
	case checkSize(size) != nil:
		return contract.Volume{}, checkSize(size)
	case size < have.SizeBytes:
		return contract.Volume{}, errs.New(errs.ShrinkNotAllowed, "volume %s has %d bytes and cannot have %d", v, have.SizeBytes, size)
	}
	if resize != nil && size > have.SizeBytes {
		if err := resize(ctx); err != nil {
			return contract.Volume{}, err
		}
	}
	have.SizeBytes = size
	return have, d.write(have)
}

// Write implements contract.Driver. Of the content, its hash is kept.
func (d *Driver) Write(ctx context.Context, v id.ID, content []byte) (contract.Volume, error) {
	if err := checkContent(v, content); err != nil {
		return contract.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(ctx, "write"); err != nil {
		return contract.Volume{}, err
	}
	have, err := d.read(v)
	switch {
	case err == nil && !have.ReadOnly:
		return contract.Volume{}, errs.New(errs.AlreadyExists, "volume %s exists, and is a guest's to write", v)
	case err != nil && !errs.Is(err, errs.NotFound):
		return contract.Volume{}, err
	}
	sum := sha256.Sum256(content)
	if err := d.writeFile(v, file{SizeBytes: int64(len(content)), ContentSHA256: hex.EncodeToString(sum[:])}); err != nil {
		return contract.Volume{}, err
	}
	return d.read(v)
}

func checkContent(v id.ID, content []byte) error {
	switch {
	case v == id.Nil:
		return errs.New(errs.InvalidID, "a volume needs an id")
	case len(content) == 0 || len(content)%sector != 0 || len(content) > contract.MaxWrite:
		return errs.New(errs.InvalidSize, "%d bytes: a content has a multiple of %d bytes, at most 16 MiB", len(content), sector)
	}
	return nil
}

// writable reads a volume that is its guest's to write.
func (d *Driver) writable(v id.ID, what string) (contract.Volume, error) {
	have, err := d.read(v)
	if err == nil && have.ReadOnly {
		err = errs.New(errs.Unsupported, "volume %s is only read by its guest and cannot be %s", v, what)
	}
	return have, err
}

// Delete implements contract.Driver.
func (d *Driver) Delete(_ context.Context, v id.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail["delete"]; err != nil {
		return err
	}
	if err := os.Remove(d.path(v)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.HostFailure, "the volume cannot be removed").Because(err)
	}
	return nil
}

// Inspect implements contract.Driver.
func (d *Driver) Inspect(_ context.Context, v id.ID) (contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read(v)
}

// List implements contract.Driver.
func (d *Driver) List(context.Context) ([]contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the volumes cannot be listed").Because(err)
	}
	var out []contract.Volume
	for _, e := range entries {
		v, err := id.Parse(e.Name())
		if err != nil {
			continue
		}
		vol, err := d.read(v)
		if err != nil {
			return nil, err
		}
		out = append(out, vol)
	}
	slices.SortFunc(out, func(a, b contract.Volume) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out, nil
}

// Usage implements contract.Driver.
func (d *Driver) Usage(ctx context.Context) (contract.Usage, error) {
	vols, err := d.List(ctx)
	u := contract.Usage{TotalBytes: d.total, FreeBytes: d.total}
	for _, v := range vols {
		u.FreeBytes = max(u.FreeBytes-v.SizeBytes, 0)
	}
	return u, err
}
