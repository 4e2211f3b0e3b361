package dir

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Write implements contract.Driver. The content is a file that is replaced whole;
// the record, which says no more than that there is one, is written once.
func (d *Driver) Write(ctx context.Context, v id.ID, content []byte) (contract.Volume, error) {
	if err := checkContent(v, content); err != nil {
		return contract.Volume{}, err
	}
	leave, err := d.turns.Take(ctx, v)
	if err != nil {
		return contract.Volume{}, err
	}
	defer leave()
	if err := ctx.Err(); err != nil {
		return contract.Volume{}, errs.New(errs.Cancelled, "volume %s was not written: the call was cancelled", v).Because(err)
	}
	r, err := d.read(v)
	switch {
	case err == nil && !r.ReadOnly:
		return contract.Volume{}, errs.New(errs.AlreadyExists, "volume %s exists, and is a guest's to write", v)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return contract.Volume{}, broken(v, err)
	}
	if err := d.writeContent(v, content, err != nil); err != nil {
		return contract.Volume{}, makeError(v, err)
	}
	return d.volume(v, record{ReadOnly: true})
}

func (d *Driver) writeContent(v id.ID, content []byte, fresh bool) error {
	name := v.String() + contentSuffix
	if has, err := d.root.ReadFile(name); fresh || err != nil || !bytes.Equal(has, content) {
		if err := durable.Write(d.root, name, content); err != nil {
			return err
		}
	}
	if !fresh {
		return nil
	}
	err := durable.WriteJSON(d.root, v.String()+recordSuffix, record{ReadOnly: true})
	if err != nil {
		_ = d.root.Remove(name)
	}
	return err
}

// contentOf describes a volume that Write made.
func (d *Driver) contentOf(v id.ID) (contract.Volume, error) {
	name := v.String() + contentSuffix
	info, err := d.root.Lstat(name)
	if err != nil {
		return contract.Volume{}, broken(v, err)
	}
	out := contract.Volume{ID: v, SizeBytes: info.Size(), ReadOnly: true, AllocatedBytes: allocated(info)}
	out.File.Path, out.File.Format = filepath.Join(d.path, name), "raw"
	return out, nil
}

// writable reads the record of a volume that must be there and be its guest's to
// write.
func (d *Driver) writable(v id.ID, what string) (record, error) {
	r, err := d.known(v)
	if err == nil && r.ReadOnly {
		err = errs.New(errs.Unsupported, "volume %s is only read by its guest and cannot be %s", v, what)
	}
	return r, err
}

func checkContent(v id.ID, content []byte) error {
	if v == id.Nil {
		return errs.New(errs.InvalidID, "a volume needs an id")
	}
	if len(content) == 0 || len(content)%sector != 0 || len(content) > contract.MaxWrite {
		return errs.New(errs.InvalidSize, "%d bytes: a content has a multiple of %d bytes, at most 16 MiB", len(content), sector)
	}
	return nil
}
