package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/novacron/novacron/api"
)

const (
	codeConflict = "conflict"
	codeNotFound = "not_found"
	codeNoSpace  = "no_space"
	codeOffset   = "offset_mismatch"
)

func uploadPath(image, upload string) string {
	return imagePath(image) + "/uploads/" + url.PathEscape(upload)
}

// Uploads lists the caller's open uploads of an image.
func (s Images) Uploads(ctx context.Context, image string) ([]api.ImageUpload, error) {
	page, err := get[api.List[api.ImageUpload]](ctx, s.c, imagePath(image)+"/uploads")
	return page.Items, err
}

// GetUpload reads how far an upload of the caller's came.
func (s Images) GetUpload(ctx context.Context, image, upload string) (api.ImageUpload, error) {
	return get[api.ImageUpload](ctx, s.c, uploadPath(image, upload))
}

// CreateUpload announces a file of an image. Upload does this and all the rest.
func (s Images) CreateUpload(ctx context.Context, image string, req api.ImageUploadCreate) (api.ImageUpload, error) {
	return create[api.ImageUpload](ctx, s.c, imagePath(image)+"/uploads", req)
}

// DeleteUpload gives an upload up.
func (s Images) DeleteUpload(ctx context.Context, image, upload string) error {
	_, err := remove[struct{}](ctx, s.c, uploadPath(image, upload))
	return err
}

// AppendUpload sends a part of a file that begins at offset: what a broken
// connection leaves of it is for GetUpload to tell. The error of a wrong offset
// has the code offset_mismatch, and the right one as the limit of its first field.
func (s Images) AppendUpload(ctx context.Context, image, upload string, offset int64, part io.ReaderAt, size int64) (api.ImageUpload, error) {
	return s.appendPart(ctx, image, upload, offset, io.NewSectionReader(part, 0, size), func(int64) {})
}

func (s Images) appendPart(ctx context.Context, image, upload string, offset int64, part *io.SectionReader, tell func(int64)) (api.ImageUpload, error) {
	r := request{
		method: http.MethodPatch, path: uploadPath(image, upload), size: part.Size(),
		raw: func() io.ReadCloser {
			return io.NopCloser(&counted{r: io.NewSectionReader(part, 0, part.Size()), n: offset, tell: tell})
		},
		header: http.Header{
			"Content-Type":  {"application/octet-stream"},
			"Upload-Offset": {strconv.FormatInt(offset, 10)},
		},
	}
	if part.Size() > 0 {
		r.header.Set("Expect", "100-continue") // a refusal comes before the bytes
	}
	var out api.ImageUpload
	err := s.c.do(ctx, r, &out)
	return out, err
}

// Upload sends one file of an image. role is disk, kernel, initrd or iso. The content
// is read twice: its hash goes ahead, so that the server can tell a damaged
// transfer, and so that an earlier upload of the same content, by this principal,
// is gone on with, also one of another process. A connection that breaks is
// replaced, for as long as something arrives now and then. progress, if not nil,
// is told how much the server has or was sent; it goes back when some of that
// was lost.
//
// Of a disk in another program's format a job makes one that guests can use: its id
// is in the image's status then, and WaitJob waits for it.
func (s Images) Upload(ctx context.Context, image, role string, content io.ReaderAt, size int64,
	progress func(sent int64),
) (api.Image, error) {
	if progress == nil {
		progress = func(int64) {}
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, &stoppable{ctx, io.NewSectionReader(content, 0, size)}); err != nil {
		return api.Image{}, fail(CodeInvalidConfig, "the file of the image cannot be read", err)
	}
	up := &upload{s: s, image: image, content: content, tell: progress, want: api.ImageUploadCreate{
		File: role, SizeBytes: api.Bytes(size), SHA256: hex.EncodeToString(hash.Sum(nil)),
	}}
	return up.run(ctx)
}

// UploadFile sends a file of this machine.
func (s Images) UploadFile(ctx context.Context, image, role, path string, progress func(sent int64)) (api.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return api.Image{}, fail(CodeInvalidConfig, "the file of the image cannot be opened", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return api.Image{}, fail(CodeInvalidConfig, fmt.Sprintf("%s is not a file", path), err)
	}
	return s.Upload(ctx, image, role, f, info.Size(), progress)
}

// upload is one run of Upload.
type upload struct {
	s       Images
	image   string
	content io.ReaderAt
	tell    func(int64)
	want    api.ImageUploadCreate
}

// arrived tells whether the image has the file already.
func (u *upload) arrived(ctx context.Context) (api.Image, bool, error) {
	img, err := u.s.Get(ctx, u.image)
	for _, f := range img.Status.Files {
		same := f.SHA256 == u.want.SHA256 || f.Source != nil && f.Source.SHA256 == u.want.SHA256
		if f.Role == u.want.File && same {
			return img, true, err
		}
	}
	return img, false, err
}

// begin finds the upload to go on with, or makes one.
func (u *upload) begin(ctx context.Context) (api.ImageUpload, error) {
	open, err := u.s.Uploads(ctx, u.image)
	if err != nil {
		return api.ImageUpload{}, err
	}
	for _, o := range open {
		switch {
		case o.File != u.want.File:
		case o.SizeBytes == u.want.SizeBytes && o.SHA256 == u.want.SHA256:
			return o, nil
		default: // of another content, and given up
			if err := u.s.DeleteUpload(ctx, u.image, o.ID); err != nil {
				return o, err
			}
		}
	}
	return u.s.CreateUpload(ctx, u.image, u.want)
}

func (u *upload) run(ctx context.Context) (api.Image, error) {
	if img, done, err := u.arrived(ctx); done || err != nil {
		return img, err
	}
	at, err := u.begin(ctx)
	if err != nil {
		return api.Image{}, err
	}
	if err := u.send(ctx, at); err != nil {
		return api.Image{}, err
	}
	return u.s.Get(ctx, u.image)
}

// uploadPatience is how long an upload may get nowhere, if RetryFor is not
// longer: a server needs up to a minute to see that an earlier connection of it
// has died.
const uploadPatience = 75 * time.Second

// send sends what is missing, over as many connections as it takes.
func (u *upload) send(ctx context.Context, at api.ImageUpload) error {
	patience := max(uploadPatience, u.s.c.cfg.RetryFor)
	if u.s.c.cfg.RetryFor < 0 {
		patience = 0
	}
	reached, deadline := int64(-1), now()
	for n := 0; ; n++ {
		offset := int64(at.OffsetBytes)
		if offset > reached {
			n, reached, deadline = 0, offset, now().Add(patience)
		}
		u.tell(offset)
		part := io.NewSectionReader(u.content, offset, int64(u.want.SizeBytes)-offset)
		next, err := u.s.appendPart(ctx, u.image, at.ID, offset, part, u.tell)
		done, err := u.judge(ctx, &at, next, err)
		if done {
			return err
		}
		wait := backoff(n)
		switch {
		case ctx.Err() != nil, err != nil && now().Add(wait).After(deadline):
			return u.interrupted(ctx, err)
		case sleep(ctx, wait) != nil:
			return u.interrupted(ctx, err)
		}
	}
}

func (u *upload) interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fail(CodeInterrupted, "the upload was interrupted", ctx.Err())
	}
	return err
}

// judge decides after a try: is the upload over, and how? If not, at is where it
// stands now, and the error, if any, what to say when nothing gets better.
func (u *upload) judge(ctx context.Context, at *api.ImageUpload, next api.ImageUpload, err error) (done bool, _ error) {
	if err == nil {
		*at = next
		return next.Complete, nil
	}
	switch code := CodeOf(err); code {
	case codeOffset:
		return !setOffset(at, err), err
	case codeConflict: // an earlier connection has not ended yet
		return false, err
	case CodeUnreachable:
		seen, look := u.s.GetUpload(ctx, u.image, at.ID)
		if look == nil {
			*at = seen
		}
		if CodeOf(look) != codeNotFound {
			return false, err
		}
	case codeNotFound:
	default:
		e, ok := errors.AsType[*api.Error](err)
		return !ok || !e.Retryable || code == codeNoSpace, err
	}
	// it is over: by the answer that was lost, or by someone else
	if _, arrived, look := u.arrived(ctx); arrived && look == nil {
		return true, nil
	}
	return true, err
}

// setOffset takes the right offset from a refusal.
func setOffset(at *api.ImageUpload, err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	if !ok || len(e.Errors) == 0 {
		return false
	}
	right, err := strconv.ParseInt(e.Errors[0].Limit, 10, 64)
	if err != nil || right < 0 || right > int64(at.SizeBytes) {
		return false
	}
	at.OffsetBytes = api.Bytes(right)
	return true
}

// counted tells how much was read.
type counted struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

// stoppable ends with its context.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
