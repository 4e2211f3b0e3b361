package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"

	"github.com/novacron/novacron/api"
)

// Images are what VMs are made from. An image is named by its name or its id.
type Images struct{ c *Client }

func imagePath(image string) string { return "/images/" + url.PathEscape(image) }

// List gives one page.
func (s Images) List(ctx context.Context, o ListOptions) (api.List[api.Image], error) {
	return list[api.Image](ctx, s.c, "/images", o)
}

// All walks through every page.
func (s Images) All(ctx context.Context, o ListOptions) iter.Seq2[api.Image, error] {
	return all[api.Image](ctx, s.c, "/images", o)
}

// Get reads one.
func (s Images) Get(ctx context.Context, image string) (api.Image, error) {
	return get[api.Image](ctx, s.c, imagePath(image))
}

// Create makes an image that waits for its files.
func (s Images) Create(ctx context.Context, req api.ImageCreate) (api.Image, error) {
	return create[api.Image](ctx, s.c, "/images", req)
}

// Delete removes an image.
func (s Images) Delete(ctx context.Context, image string) (Change, error) {
	return remove[Change](ctx, s.c, imagePath(image))
}

// Upload sends one file of an image. role is disk, kernel or initrd. The content
// is read twice: its hash goes ahead, so that the server can tell a damaged
// transfer. progress, if not nil, is told how much was sent; it goes back to the
// start when a broken upload begins again.
func (s Images) Upload(ctx context.Context, image, role string, content io.ReaderAt, size int64,
	progress func(sent int64),
) (api.Image, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, &stoppable{ctx, io.NewSectionReader(content, 0, size)}); err != nil {
		return api.Image{}, fail(CodeInvalidConfig, "the file of the image cannot be read", err)
	}
	if progress == nil {
		progress = func(int64) {}
	}
	r := request{
		method: http.MethodPut, path: imagePath(image) + "/files/" + url.PathEscape(role), size: size, safe: true,
		raw: func() io.ReadCloser {
			return io.NopCloser(&counted{r: io.NewSectionReader(content, 0, size), tell: progress})
		},
		header: http.Header{
			"Content-Type": {"application/octet-stream"},
			"Digest":       {"sha-256=" + hex.EncodeToString(sum.Sum(nil))},
			// a refusal comes before the bytes
			"Expect": {"100-continue"},
		},
	}
	var out api.Image
	err := s.c.do(ctx, r, &out)
	return out, err
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
