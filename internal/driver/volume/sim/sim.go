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

// maxSize is that of real volumes.
const maxSize = 64 << 40

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
	return &Driver{dir: dir, total: total, fail: map[string]error{}}, nil
}

// Fail makes the named method ("create", "copy", "grow", "write", "delete") return an error until it is
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
func (d *Driver) Create(_ context.Context, s contract.Spec) (contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail["create"]; err != nil {
		return contract.Volume{}, err
	}
	if err := check(s); err != nil {
		return contract.Volume{}, err
	}
	want := volume(s, d.path(s.ID))
	if have, err := d.read(s.ID); err == nil {
		return have, sameVolume(have, want)
	}
	return want, d.write(want)
}

func (d *Driver) write(v contract.Volume) error { return d.writeFile(v.ID, document(v)) }

func (d *Driver) writeFile(v id.ID, f file) error {
	b, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(d.path(v), b, 0o600)
	}
	if err != nil {
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
	if s.SizeBytes <= 0 || s.SizeBytes%512 != 0 || (s.Base != nil && s.SizeBytes < s.Base.VirtualSize) {
		return errs.New(errs.InvalidSize, "a volume's size is a multiple of 512 bytes and at least its base's")
	}
	return nil
}

func sameVolume(have, want contract.Volume) error {
	if have.ReadOnly || have.SizeBytes != want.SizeBytes || (have.Backing == nil) != (want.Backing == nil) {
		return errs.New(errs.AlreadyExists, "another volume has the id %s", want.ID)
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

func (d *Driver) read(v id.ID) (contract.Volume, error) {
	var doc file
	b, err := os.ReadFile(d.path(v))
	if errors.Is(err, fs.ErrNotExist) {
		return contract.Volume{}, errs.New(errs.NotFound, "there is no volume %s on this node", v)
	}
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return contract.Volume{}, errs.New(errs.HostFailure, "the volume cannot be read").Because(err)
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
func (d *Driver) Copy(_ context.Context, v, from id.ID) (contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail["copy"]; err != nil {
		return contract.Volume{}, err
	}
	want, err := d.writable(from, "copied")
	if err != nil {
		return contract.Volume{}, err
	}
	want.ID, want.File.Path = v, d.path(v)
	if have, err := d.read(v); err == nil {
		return have, sameVolume(have, want)
	}
	return want, d.write(want)
}

// Grow implements contract.Driver.
func (d *Driver) Grow(ctx context.Context, v id.ID, size int64, resize func(context.Context) error) (contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail["grow"]; err != nil {
		return contract.Volume{}, err
	}
	have, err := d.writable(v, "grown")
	switch {
	case err != nil:
		return contract.Volume{}, err
	case size <= 0 || size%512 != 0 || size > maxSize:
		return contract.Volume{}, errs.New(errs.InvalidSize, "a volume's size is a multiple of 512 bytes, at most 64 TiB")
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
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail["write"]; err != nil {
		return contract.Volume{}, err
	}
	if v == id.Nil {
		return contract.Volume{}, errs.New(errs.InvalidID, "a volume needs an id")
	}
	if len(content) == 0 || len(content)%512 != 0 || len(content) > contract.MaxWrite {
		return contract.Volume{}, errs.New(errs.InvalidSize, "a content is a multiple of 512 bytes, at most 16 MiB")
	}
	if err := ctx.Err(); err != nil {
		return contract.Volume{}, errs.New(errs.Cancelled, "the call was cancelled").Because(err)
	}
	if have, err := d.read(v); err == nil && !have.ReadOnly {
		return contract.Volume{}, errs.New(errs.AlreadyExists, "another volume has the id %s", v)
	}
	sum := sha256.Sum256(content)
	if err := d.writeFile(v, file{SizeBytes: int64(len(content)), ContentSHA256: hex.EncodeToString(sum[:])}); err != nil {
		return contract.Volume{}, err
	}
	return d.read(v)
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
		u.FreeBytes -= v.SizeBytes
	}
	return u, err
}
