package dir

import (
	"context"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Content reads what a base shows, piece by piece; what it leaves out are zeros.
type Content func(base contract.Base, put func(at int64, p []byte) error) error

// OpenShared opens a folder that drivers on several hosts have open at once. It has no base
// in common with the others, so that a volume is made whole, as a raw file without what is
// zero. Nothing keeps the others out, and nothing is swept: what a crash leaves of a volume
// goes with its Delete. Callers see to it that of one volume there is one caller at a time,
// on all hosts.
func OpenShared(path string, content Content) (*Driver, error) {
	if !filepath.IsAbs(path) {
		return nil, errs.New(errs.InvalidField, "the folder of volumes is an absolute path")
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of volumes cannot be opened").Because(err)
	}
	return &Driver{path: path, root: root, content: content, suffix: wholeSuffix, format: "raw"}, nil
}

// check makes the record of a wanted volume. Of one that is made whole it keeps the name of
// what it was made of: where that lies is another place on each host.
func (d *Driver) check(s contract.Spec) (record, error) {
	r, err := check(s)
	if d.content != nil && r.Backing != nil {
		r.From, r.Backing = filepath.Base(r.Backing.Path), nil
	}
	return r, err
}

// whole writes an image that stands on nothing.
func (d *Driver) whole(ctx context.Context, f *os.File, s contract.Spec) error {
	if err := f.Truncate(s.SizeBytes); err != nil || s.Base == nil {
		return err
	}
	return d.content(*s.Base, func(at int64, p []byte) error {
		if err := ctx.Err(); err != nil {
			return cancelled(err)
		}
		_, err := f.WriteAt(p, at)
		return err
	})
}

// wholeAs refuses an image that is not as large as its volume.
func wholeAs(size int64, want record) error {
	if size != want.SizeBytes {
		return errs.New(errs.InvalidImage, "an image of %d bytes came for a volume of %d", size, want.SizeBytes)
	}
	return nil
}
