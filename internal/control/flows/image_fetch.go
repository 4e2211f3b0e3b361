package flows

import (
	"context"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/domain/image/inspect"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/remote"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// JobImageFetch is the kind of the job that reads a file of an image from a URL.
const JobImageFetch = "image.fetch"

// FetchParams are the parameters of image.fetch.
type FetchParams struct {
	Role image.Role `json:"role"`
	URL  string     `json:"url"`
	// SHA256 is what the file must be; empty when it may be anything.
	SHA256 string `json:"sha256,omitempty"`
}

// ImageFetch reads a file of an image from a URL, looks into it, and converts it if
// guests cannot use it as it is. The image was taken for this job when the request
// was accepted. How far it came is recorded now and then, so that another server, or
// this one after its death, goes on where it can.
//
// It unwinds to an image that waits for its file: nothing of what came is kept.
func ImageFetch() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: JobImageFetch,
		Steps: []workflow.Step[Env]{
			{Name: "download", Do: download, Undo: dropDownload, Cancellable: true},
			{Name: "look into it", Do: takeDownload, Undo: dropTaken, Cancellable: true},
			// its undo is that of the step before
			{Name: "convert", Do: convertDisk, Cancellable: true},
			{Name: "remove what came", NoReturn: true, Do: removeSource},
		},
		Finish: finishImage,
	}
}

// checkpoint is how many bytes may have to be read again after a server's death.
const checkpoint = 32 << 20

// download reads the file into a part that has the job's id.
func download(ctx context.Context, r *run) (any, error) {
	var p FetchParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	d := &downloading{r: r, p: p}
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	defer d.part.Close()
	for d.up.Offset == 0 || d.up.Offset < d.up.SizeBytes {
		if err := d.read(ctx); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// downloading is one run of download.
type downloading struct {
	r    *run
	p    FetchParams
	up   image.Upload
	part *blob.Part
}

// open finds how far an attempt before came, or begins.
func (d *downloading) open(ctx context.Context) (err error) {
	job := d.r.Job.ID
	d.up, err = d.r.Env.Store.UploadOfJob(ctx, job)
	if errs.Is(err, errs.NotFound) {
		d.up = image.Upload{ID: job, ProjectID: *d.r.Job.ProjectID, ImageID: d.r.Job.Target.ID, Role: d.p.Role, Principal: "job " + job.String(), SizeBytes: 1, SHA256: d.p.SHA256}
		err = write(ctx, d.r, func(tx *store.Tx) error { return tx.UploadInsert(ctx, d.up) })
	}
	if err != nil {
		return err
	}
	if d.part, err = d.r.Env.Content.OpenPart(job, true); errs.Is(err, errs.Conflict) {
		return workflow.Wait("a server that had this job before has not let go of the file yet", lookForFile)
	}
	if err != nil {
		return err
	}
	// what another folder has, or nobody any more, is read again
	if d.part.Resume(d.up.Offset, d.up.HashState) != nil {
		err = d.again(ctx, d.up)
	}
	if err != nil {
		d.part.Close()
	}
	return err
}

// again begins the file anew, as what it is now.
func (d *downloading) again(ctx context.Context, is image.Upload) error {
	if err := d.part.Resume(0, nil); err != nil {
		return err
	}
	is.Offset, is.HashState = 0, nil
	d.up = is
	return write(ctx, d.r, func(tx *store.Tx) error { return tx.UploadIs(ctx, is) })
}

// read makes one request and takes what comes. What came is kept when it breaks
// off; one that brought something is followed by another at once.
func (d *downloading) read(ctx context.Context) error {
	b, err := d.r.Env.Fetch.Get(ctx, d.p.URL, d.up.Offset, d.up.Validator, image.MaxFile)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if err := d.isWhat(ctx, b); err != nil {
		return err
	}
	began := d.up.Offset
	for ended := false; !ended && d.up.Offset < d.up.SizeBytes; {
		if ended, err = d.take(ctx, b); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if d.up.Offset == began {
		return errs.New(errs.Timeout, "nothing more came from the URL at byte %d of %d", d.up.Offset, d.up.SizeBytes)
	}
	return nil // and on from there
}

// take adds up to a checkpoint, and tells whether nothing more comes.
func (d *downloading) take(ctx context.Context, b *remote.Body) (ended bool, err error) {
	ended, err = d.part.Append(ctx, b, min(checkpoint, d.up.SizeBytes-d.up.Offset))
	if kept := d.keep(ctx); kept != nil {
		return true, kept
	}
	if errs.Is(err, errs.InvalidField) { // it broke off
		return true, nil
	}
	return ended, err
}

// isWhat begins anew when what comes is not what came before.
func (d *downloading) isWhat(ctx context.Context, b *remote.Body) error {
	if b.From == d.up.Offset && b.Size == d.up.SizeBytes && b.Validator == d.up.Validator {
		return nil
	}
	if b.From != 0 {
		return errs.New(errs.Timeout, "the file at the URL became another while it was read")
	}
	is := d.up
	is.SizeBytes, is.Validator = b.Size, b.Validator
	return d.again(ctx, is)
}

// keep makes what came durable and records it.
func (d *downloading) keep(ctx context.Context) error {
	if d.up.Offset == d.part.Offset {
		return nil
	}
	state, err := d.part.State()
	if err != nil {
		return err
	}
	next := d.up
	next.Offset, next.HashState = d.part.Offset, state
	if err := write(ctx, d.r, func(tx *store.Tx) error { return tx.UploadProgress(ctx, next, d.up.Offset) }); err != nil {
		return err
	}
	d.up = next
	return d.r.Progress(ctx, int(100*(next.Offset/(1<<10))/max(next.SizeBytes/(1<<10), 1)))
}

// dropDownload removes what came.
func dropDownload(ctx context.Context, r *run) error {
	if err := write(ctx, r, func(tx *store.Tx) error { return tx.UploadDelete(ctx, r.Job.ID) }); err != nil {
		return err
	}
	_, err := r.Env.Content.RemovePart(r.Job.ID) // that of another server its reconciler removes
	return err
}

// takeDownload looks into what came and makes it the image's, or what the image is
// made from.
func takeDownload(ctx context.Context, r *run) (any, error) {
	var p FetchParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	u, err := r.Env.Store.UploadOfJob(ctx, r.Job.ID)
	if errs.Is(err, errs.NotFound) {
		_, err = r.Env.Content.RemovePart(r.Job.ID)
		return nil, err // it is the image's already
	}
	if err != nil {
		return nil, err
	}
	part, err := r.Env.Content.OpenPart(r.Job.ID, false)
	if errs.Is(err, errs.NotFound) {
		return nil, workflow.Wait("this server does not have what came: the job goes on at the one that has it", lookForFile)
	}
	if err != nil {
		return nil, err
	}
	defer part.Close()
	if err := part.Resume(u.Offset, u.HashState); err != nil {
		return nil, err
	}
	f, err := look(u, part)
	if err != nil {
		return nil, err
	}
	if err := keepDownload(ctx, r, f, part); err != nil {
		return nil, err
	}
	part.Discard()
	return nil, nil
}

// look holds a file that is whole against what it must be.
func look(u image.Upload, part *blob.Part) (image.File, error) {
	f := image.File{Role: u.Role, SHA256: part.SHA256(), SizeBytes: u.SizeBytes}
	if u.SHA256 != "" && u.SHA256 != f.SHA256 {
		return f, errs.New(errs.ImageMismatch, "the file at the URL is SHA-256 %s, not what was asked for: nothing of it is kept", f.SHA256)
	}
	is, err := inspect.File(part.File(), u.SizeBytes, u.Role)
	f.Format, f.VirtualBytes = is.Format, is.VirtualBytes
	return f, err
}

func keepDownload(ctx context.Context, r *run, f image.File, part *blob.Part) error {
	return keepFile(ctx, r, f.SHA256, func(tx *store.Tx) error {
		img, err := tx.ImageGet(ctx, *r.Job.ProjectID, r.Job.Target.ID.String())
		if err != nil {
			return err
		}
		if err := part.Keep(); err != nil {
			return err
		}
		if err := tx.UploadDelete(ctx, r.Job.ID); err != nil {
			return err
		}
		if _, foreign := disk.Foreign(f.Format); foreign {
			return tx.ConversionInsert(ctx, image.Conversion{JobID: r.Job.ID, ImageID: img.ID, From: f})
		}
		return tx.ImageFilePut(ctx, img, f)
	})
}

// dropTaken takes the file from the image, and what was made of it.
func dropTaken(ctx context.Context, r *run) error {
	var p FetchParams
	if err := r.Params(&p); err != nil {
		return err
	}
	return dropRole(ctx, r, r.Job.Target.ID, p.Role)
}
