package control

import (
	"context"
	"os"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// OpenImageFile opens a file of an image for reading. That somebody reads what is in
// an image is on record, like the opening of a console; part is where the reading
// begins, for the record. The caller closes the file.
func (s *Service) OpenImageFile(ctx context.Context, c Caller, ref string, role image.Role, part string) (image.File, *os.File, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return image.File{}, nil, err
	}
	f, ok := i.File(role)
	switch {
	case i.State == image.Deleting:
		return f, nil, errs.New(errs.InvalidState, "image %q is being deleted", i.Name)
	case !ok:
		return f, nil, errs.New(errs.NotFound, "image %q has no file %q", i.Name, errs.Clip(string(role)))
	}
	file, err := s.cfg.Images.Open(f.SHA256)
	if err != nil {
		return f, nil, err
	}
	if info, err := file.Stat(); err != nil || info.Size() != f.SizeBytes {
		_ = file.Close()
		return f, nil, errs.New(errs.HostFailure, "the server's copy of the %s of image %q is damaged: it is not as long as it was", role, i.Name).Because(err)
	}
	err = s.change(ctx, func(tx *store.Tx) error {
		r := c.record("image.download", "image", i.ID, i.Name)
		r.ProjectID, r.Detail = &i.ProjectID, map[string]any{"role": string(role), "sha256": f.SHA256}
		if part != "" {
			r.Detail["range"] = part
		}
		return tx.AuditInsert(ctx, r)
	})
	if err != nil {
		_ = file.Close()
		return f, nil, err
	}
	return f, file, nil
}
