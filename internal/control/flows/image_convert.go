package flows

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// JobImageConvert is the kind of the job that makes qcow2 of a disk in another
// program's format.
const JobImageConvert = "image.convert"

// ImageConvert makes a disk that came in another program's format one that guests
// can use. What came was kept, and the image taken for this job, when the request
// was accepted.
//
// It unwinds to an image that waits for its file: what came is removed, and what was
// made of it.
func ImageConvert() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: JobImageConvert,
		Steps: []workflow.Step[Env]{
			{Name: "convert", Do: convertDisk, Undo: dropDisks, Cancellable: true},
			{Name: "remove what came", NoReturn: true, Do: removeSource},
		},
		Finish: finishImage,
	}
}

// lookForFile is how long a job sleeps whose file is in the folder of another
// server.
const lookForFile = 10 * time.Second

// convertDisk writes the disk anew and makes it the image's. What is there of an
// attempt before is written over: the same disk gives the same bytes.
func convertDisk(ctx context.Context, r *run) (any, error) {
	c, err := r.Env.Store.Conversion(ctx, r.Job.ID)
	if errs.Is(err, errs.NotFound) {
		return nil, nil // there is nothing to convert
	}
	if err != nil {
		return nil, err
	}
	img, err := r.Env.Store.ImageByID(ctx, c.ImageID)
	if err != nil {
		return nil, err
	}
	if _, done := img.File(c.From.Role); done {
		return nil, nil
	}
	made, err := writeDisk(ctx, r, c.From)
	if err != nil {
		return nil, err
	}
	defer made.Discard()
	return nil, keepFile(ctx, r, made.SHA256, func(tx *store.Tx) error {
		if err := made.Keep(); err != nil {
			return err
		}
		return tx.ImageFilePut(ctx, img, image.File{
			Role: c.From.Role, SHA256: made.SHA256, SizeBytes: made.Size, Format: "qcow2", VirtualBytes: c.From.VirtualBytes,
			Source: &image.Source{SHA256: c.From.SHA256, Format: c.From.Format},
		})
	})
}

// keepFile has a file become an image's, under the lock of its content. One that was
// kept and did not become the image's, as when the job is cancelled in that moment,
// goes again.
func keepFile(ctx context.Context, r *run, sum string, become func(*store.Tx) error) error {
	err := write(ctx, r, func(tx *store.Tx) error {
		if err := tx.ImageSumLock(ctx, sum); err != nil {
			return err
		}
		return become(tx)
	})
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	return errors.Join(err, r.Env.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.ImageSumLock(ctx, sum); err != nil {
			return err
		}
		return dropUnused(ctx, r, tx, sum)
	}))
}

// cleanTime bounds how long a job that was broken off may clean up after itself.
const cleanTime = 10 * time.Second

// The shares of a conversion's two parts in its progress, in percent.
const (
	shareWriting = 80
	shareHashing = 100 - shareWriting
)

// writeDisk converts a file of the folder of images into a hidden one.
func writeDisk(ctx context.Context, r *run, from image.File) (*blob.Upload, error) {
	src, err := r.Env.Content.Open(from.SHA256)
	if errs.Is(err, errs.NotFound) {
		return nil, workflow.Wait("this server does not have what came: the job goes on at the one that has it", lookForFile)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	d, err := disk.Open(src, from.SizeBytes, disk.Format(from.Format))
	if err != nil {
		return nil, err
	}
	var size int64
	return r.Env.Content.Build(ctx, func(to io.WriterAt) error {
		size, err = d.Convert(to, func(at int64) error { return r.Progress(ctx, int(at*shareWriting/d.Bytes)) })
		return err
	}, func(at int64) error { return r.Progress(ctx, shareWriting+int(at*shareHashing/max(size, 1))) })
}

// dropDisks takes back what the job made and what it was to be made from.
func dropDisks(ctx context.Context, r *run) error {
	c, err := r.Env.Store.Conversion(ctx, r.Job.ID)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return dropRole(ctx, r, r.Job.Target.ID, c.From.Role)
}

// dropRole takes an image's file of a role back, and what it was to be made from.
func dropRole(ctx context.Context, r *run, which id.ID, role image.Role) error {
	img, err := r.Env.Store.ImageByID(ctx, which)
	if err != nil {
		return err
	}
	if f, made := img.File(role); made {
		err := write(ctx, r, func(tx *store.Tx) error {
			if err := tx.ImageSumLock(ctx, f.SHA256); err != nil {
				return err
			}
			if err := tx.ImageFileDelete(ctx, img.ID, f.Role); err != nil {
				return err
			}
			return dropUnused(ctx, r, tx, f.SHA256)
		})
		if err != nil {
			return err
		}
	}
	_, err = removeSource(ctx, r)
	return err
}

// removeSource forgets what came, once the image has what was made of it.
func removeSource(ctx context.Context, r *run) (any, error) {
	c, err := r.Env.Store.Conversion(ctx, r.Job.ID)
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, forgetSource(ctx, r, c)
}

func forgetSource(ctx context.Context, r *run, c image.Conversion) error {
	return write(ctx, r, func(tx *store.Tx) error {
		if err := tx.ImageSumLock(ctx, c.From.SHA256); err != nil {
			return err
		}
		if err := tx.ConversionDelete(ctx, c.JobID); err != nil {
			return err
		}
		return dropUnused(ctx, r, tx, c.From.SHA256)
	})
}

// dropUnused removes a file that no image has, under the lock of its content.
func dropUnused(ctx context.Context, r *run, tx *store.Tx, sum string) error {
	used, err := tx.ImageSumUsed(ctx, sum)
	if err != nil || used {
		return err
	}
	return r.Env.Files.Remove(sum)
}

// finishImage ends the hold: an image with all its files is ready, another waits for
// the rest.
func finishImage(ctx context.Context, tx pgx.Tx, r *run, _ workflow.Outcome) error {
	return letGo(ctx, store.On(tx), *r.Job.ProjectID, r.Job.Target.ID)
}

func letGo(ctx context.Context, t *store.Tx, project, which id.ID) error {
	img, err := t.ImageGet(ctx, project, which.String())
	if err != nil {
		return err
	}
	to := image.Uploading
	if img.Complete() {
		to = image.Ready
	}
	return t.ImageSetState(ctx, img, to, nil)
}
