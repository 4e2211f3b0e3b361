package control

import (
	"context"
	"io"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/domain/image/inspect"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Images gives a page of images.
func (s *Service) Images(ctx context.Context, p store.Page) ([]image.Image, *store.Next, error) {
	return s.cfg.Store.ImageList(ctx, s.cfg.Project, p)
}

// Image gives one image.
func (s *Service) Image(ctx context.Context, ref string) (image.Image, error) {
	return s.cfg.Store.ImageGet(ctx, s.cfg.Project, ref)
}

// CreateImage records an image whose files come next.
func (s *Service) CreateImage(ctx context.Context, c Caller, name string, kind image.Kind, cmdline string) (image.Image, error) {
	if err := image.Validate(name, kind, cmdline); err != nil {
		return image.Image{}, err
	}
	out, err := s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		i := image.Image{ID: id.New(), ProjectID: s.cfg.Project, Name: name, Kind: kind, Cmdline: cmdline}
		if err := tx.ImageInsert(ctx, i); err != nil {
			return Accepted{}, err
		}
		r := c.record("image.create", "image", i.ID, name)
		r.ProjectID = &s.cfg.Project
		return Accepted{Object: i.ID}, tx.AuditInsert(ctx, r)
	})
	if err != nil {
		return image.Image{}, err
	}
	return s.Image(ctx, out.Object.String())
}

// PutImageFile receives a file of an image, looks into it before anything else
// does, and makes the image ready with the last one. sum, unless empty, is the
// SHA-256 the sender promises.
func (s *Service) PutImageFile(ctx context.Context, c Caller, ref string, role image.Role, sum string, body io.Reader) (image.Image, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return i, err
	}
	if err := i.Awaits(role); err != nil {
		return i, err
	}
	up, err := s.cfg.Images.Receive(ctx, body, image.MaxFile)
	if err != nil {
		return i, err
	}
	defer up.Discard()
	if sum != "" && sum != up.SHA256 {
		return i, errs.New(errs.ImageMismatch, "the file arrived as SHA-256 %s, not as promised: send it again", up.SHA256)
	}
	is, err := inspect.File(up.File(), up.Size, role)
	if err != nil {
		return i, err
	}
	f := image.File{Role: role, SHA256: up.SHA256, SizeBytes: up.Size, Format: is.Format, VirtualBytes: is.VirtualBytes}
	if err := s.keepFile(ctx, c, i.ID, f, up); err != nil {
		return i, err // an unreferenced file is swept by the reconciler of images
	}
	return s.Image(ctx, i.ID.String())
}

// keepFile makes the content visible and records it under the lock of that
// content, so that the deletion of an image with the same bytes cannot come
// between.
func (s *Service) keepFile(ctx context.Context, c Caller, i id.ID, f image.File, up content) error {
	return s.change(ctx, func(tx *store.Tx) error {
		img, err := tx.ImageGet(ctx, s.cfg.Project, i.String())
		if err != nil {
			return err
		}
		if err := img.Awaits(f.Role); err != nil {
			return err
		}
		if err := tx.ImageSumLock(ctx, f.SHA256); err != nil {
			return err
		}
		if err := up.Keep(); err != nil {
			return err
		}
		r := c.record("image.upload", "image", img.ID, img.Name)
		r.ProjectID, r.Detail = &s.cfg.Project, map[string]any{"role": string(f.Role), "sha256": f.SHA256, "size_bytes": f.SizeBytes}
		if r.JobID, err = s.takeFile(ctx, tx, c, img, f); err != nil {
			return err
		}
		return tx.AuditInsert(ctx, r)
	})
}

// takeFile makes a file the image's, or has a job make it of one that guests cannot
// use as it is.
func (s *Service) takeFile(ctx context.Context, tx *store.Tx, c Caller, img image.Image, f image.File) (*id.ID, error) {
	if _, foreign := disk.Foreign(f.Format); foreign {
		if err := tx.UploadsEnd(ctx, img.ID, f.Role); err != nil {
			return nil, err
		}
		return s.convert(ctx, tx, c, img, f)
	}
	if err := tx.ImageFilePut(ctx, img, f); err != nil {
		return nil, err
	}
	return nil, s.fileCame(ctx, tx, img, f)
}

// convert begins the job that makes qcow2 of a disk.
func (s *Service) convert(ctx context.Context, tx *store.Tx, c Caller, img image.Image, f image.File) (*id.ID, error) {
	job := id.New()
	if _, err := s.enqueue(ctx, tx, c, workflow.NewJob{
		ID: job, Kind: flows.JobImageConvert, ProjectID: &img.ProjectID, Params: struct{}{}, Cancellable: true,
		Target: workflow.Target{Kind: "image", ID: img.ID, Name: img.Name},
	}); err != nil {
		return nil, err
	}
	if err := tx.ConversionInsert(ctx, image.Conversion{JobID: job, ImageID: img.ID, From: f}); err != nil {
		return nil, err
	}
	return &job, tx.ImageSetState(ctx, img, image.Uploading, &job)
}

// content is a hidden file that can be made visible.
type content interface{ Keep() error }

// fileCame ends all uploads of a file, and with the last one the image's.
func (s *Service) fileCame(ctx context.Context, tx *store.Tx, img image.Image, f image.File) error {
	if err := tx.UploadsEnd(ctx, img.ID, f.Role); err != nil {
		return err
	}
	if img.Files = append(img.Files, f); !img.Complete() {
		return nil
	}
	return tx.ImageSetState(ctx, img, image.Ready, nil)
}

// DeleteImage starts the deletion of an image that no VM is made from.
func (s *Service) DeleteImage(ctx context.Context, c Caller, ref string) (out Accepted, err error) {
	err = s.change(ctx, func(tx *store.Tx) error {
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err == nil {
			out, err = s.deleteImage(ctx, tx, c, i, ref)
		}
		return err
	})
	return out, err
}

func (s *Service) deleteImage(ctx context.Context, tx *store.Tx, c Caller, i image.Image, ref string) (Accepted, error) {
	if i.State == image.Deleting {
		return Accepted{Job: i.JobID, Object: i.ID}, nil
	}
	if i.JobID != nil {
		return Accepted{}, errs.New(errs.Conflict, "a job brings image %q a file: cancel it first, or wait for its end", i.Name).HeldBy(i.JobID.String())
	}
	// who uses it, a database that is behind does not know
	if err := s.holds.Behind(); err != nil {
		return Accepted{}, err
	}
	users, total, err := tx.ImageUsers(ctx, i.ID)
	if err != nil {
		return Accepted{}, err
	}
	if err := image.Deletable(i, ref, users, total); err != nil {
		return Accepted{}, err
	}
	if err := tx.ImageAliasesRemove(ctx, i.ID); err != nil {
		return Accepted{}, err
	}
	job := id.New()
	if _, err := s.enqueue(ctx, tx, c, workflow.NewJob{
		ID: job, Kind: flows.JobImageDelete, ProjectID: &i.ProjectID, Params: struct{}{},
		Target: workflow.Target{Kind: "image", ID: i.ID, Name: i.Name},
	}); err != nil {
		return Accepted{}, err
	}
	if err := tx.ImageSetState(ctx, i, image.Deleting, &job); err != nil {
		return Accepted{}, err
	}
	r := c.record("image.delete", "image", i.ID, i.Name)
	r.JobID, r.ProjectID = &job, &i.ProjectID
	return Accepted{Job: &job, Object: i.ID}, tx.AuditInsert(ctx, r)
}

// CollectImages deletes images that wait for files nobody has sent anything of for a
// day, as the uploads of these are collected, and counts them.
func (s *Service) CollectImages(ctx context.Context) (n int64, err error) {
	all, err := s.cfg.Store.ImagesUnfinished(ctx)
	if err != nil {
		return 0, err
	}
	who := Caller{}
	who.Name, who.Role = "images-unfinished", "reconciler"
	for _, i := range all {
		err := s.change(ctx, func(tx *store.Tx) error {
			is, err := tx.ImageUnfinished(ctx, i)
			if err != nil || !is {
				return err
			}
			img, err := tx.ImageGet(ctx, s.cfg.Project, i.String())
			if err != nil {
				return err
			}
			n++
			_, err = s.deleteImage(ctx, tx, who, img, i.String())
			return err
		})
		if err != nil && !errs.Is(err, errs.NotFound) {
			return n, err
		}
	}
	return n, nil
}
