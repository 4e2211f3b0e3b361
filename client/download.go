package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/novacron/novacron/api"
)

// OpenFile reads a file of an image from the byte offset on. role is disk, kernel,
// initrd or iso. What was read is to be held against the SHA-256 that the image's
// status has; DownloadFile does this and goes on after breaks.
func (s Images) OpenFile(ctx context.Context, image, role string, offset int64) (io.ReadCloser, error) {
	r := request{method: http.MethodGet, path: imagePath(image) + "/files/" + url.PathEscape(role), safe: true, header: http.Header{}}
	if offset > 0 {
		r.header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	var body io.ReadCloser
	err := s.c.repeat(ctx, r, func(ctx context.Context) error {
		resp, err := s.c.once(ctx, r)
		if err != nil {
			return err
		}
		if offset > 0 && resp.StatusCode != http.StatusPartialContent {
			_ = resp.Body.Close()
			return fail(CodeBadAnswer, "the server does not go on where a reading broke off", nil)
		}
		body = resp.Body
		return nil
	})
	return body, err
}

// DownloadFile reads a file of an image into a file of this machine, which is there
// whole or not at all: until it is, what came is in path with ".part" behind it, and
// is gone on with, also by another process. A connection that breaks is replaced, for
// as long as something arrives now and then. What came is held against its SHA-256.
// progress, if not nil, is told how much is here; it goes back when that was not what
// it should be.
func (s Images) DownloadFile(ctx context.Context, image, role, path string, progress func(got int64)) (api.ImageFile, error) {
	if progress == nil {
		progress = func(int64) {}
	}
	img, err := s.Get(ctx, image)
	if err != nil {
		return api.ImageFile{}, err
	}
	d := &download{s: s, image: img.ID, tell: progress}
	for _, f := range img.Status.Files {
		if f.Role == role {
			d.want = f
		}
	}
	if d.want.SHA256 == "" {
		return d.want, &failure{public: &api.Error{Code: codeNotFound, Detail: fmt.Sprintf("image %q has no %s", img.Name, role)}}
	}
	part := path + ".part"
	if d.file, err = os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o666); err != nil { //nolint:gosec // the caller's umask decides, as for any file a program writes
		return d.want, fail(CodeInvalidConfig, "the file cannot be written", err)
	}
	defer func() { _ = d.file.Close() }()
	if err := d.run(ctx); err != nil {
		return d.want, err
	}
	if err := d.file.Sync(); err != nil {
		return d.want, fail(CodeInvalidConfig, "the file cannot be written", err)
	}
	if err := os.Rename(part, path); err != nil {
		return d.want, fail(CodeInvalidConfig, "the file cannot be written", err)
	}
	return d.want, nil
}

// download is one run of DownloadFile.
type download struct {
	s     Images
	image string
	want  api.ImageFile
	file  *os.File
	tell  func(int64)
	// got bytes are in the file, and hashed
	got  int64
	hash hash.Hash
}

// run reads what is missing. What an earlier run left, and turns out to be something
// else, is read anew, once.
func (d *download) run(ctx context.Context) error {
	if err := d.resume(ctx); err != nil {
		return err
	}
	resumed := d.got > 0
	for {
		if err := d.fill(ctx); err != nil {
			return err
		}
		if hex.EncodeToString(d.hash.Sum(nil)) == d.want.SHA256 {
			return nil
		}
		if err := d.begin(); err != nil {
			return err
		}
		if !resumed {
			return fail(CodeBadAnswer, "what came is not what the image is: its SHA-256 differs; it was thrown away", nil)
		}
		resumed = false
	}
}

// resume takes up what an earlier run left.
func (d *download) resume(ctx context.Context) error {
	info, err := d.file.Stat()
	if err != nil {
		return fail(CodeInvalidConfig, "the file cannot be read", err)
	}
	if info.Size() > int64(d.want.SizeBytes) {
		return d.begin()
	}
	d.hash = sha256.New()
	if d.got, err = io.Copy(d.hash, &stoppable{ctx, d.file}); err != nil {
		return fail(CodeInvalidConfig, "what was read before cannot be read", err)
	}
	return nil
}

// begin throws away what is there.
func (d *download) begin() error {
	d.got, d.hash = 0, sha256.New()
	d.tell(0)
	if err := d.file.Truncate(0); err != nil {
		return fail(CodeInvalidConfig, "the file cannot be written", err)
	}
	return nil
}

// fill reads to the end, over as many connections as it takes.
func (d *download) fill(ctx context.Context) error {
	patience := max(d.s.c.cfg.RetryFor, 0)
	deadline := now().Add(patience)
	for n := 0; d.got < int64(d.want.SizeBytes); n++ {
		before := d.got
		err := d.read(ctx)
		if d.got > before {
			n, deadline = 0, now().Add(patience)
		}
		wait := backoff(n)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return fail(CodeInterrupted, "the download was interrupted; what came is kept", ctx.Err())
		case !retryable(err) || now().Add(wait).After(deadline):
			return err
		}
		_ = sleep(ctx, wait) // its end is seen at the next try
	}
	return nil
}

// stalled is how long a download may stand still before its connection is replaced.
const stalled = time.Minute

// read reads over one connection.
func (d *download) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := d.s.OpenFile(ctx, d.image, d.want.Role, d.got)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	alive, stop := watchdog(stalled, cancel)
	defer stop()
	left := int64(d.want.SizeBytes) - d.got
	buf := make([]byte, min(left, 256<<10))
	for left > 0 {
		n, err := body.Read(buf[:min(left, int64(len(buf)))])
		alive()
		if n > 0 {
			if _, err := d.file.WriteAt(buf[:n], d.got); err != nil {
				return fail(CodeInvalidConfig, "the file cannot be written; is the disk full?", err)
			}
			_, _ = d.hash.Write(buf[:n])
			d.got += int64(n)
			left -= int64(n)
			d.tell(d.got)
		}
		if err != nil && left > 0 {
			return fail(CodeUnreachable, "the connection broke off", err)
		}
	}
	return nil
}
