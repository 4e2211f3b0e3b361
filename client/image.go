package client

import (
	"context"
	"iter"
	"net/url"

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

// Fetch has a server read a file of an image from a URL; the job of the answer does
// it.
func (s Images) Fetch(ctx context.Context, image string, req api.ImageFetch) (Change, error) {
	return create[Change](ctx, s.c, imagePath(image)+"/fetch", req)
}

// Capture makes an image's disk of one of a stopped VM; the job of the answer does it.
func (s Images) Capture(ctx context.Context, image string, req api.ImageCapture) (Change, error) {
	return create[Change](ctx, s.c, imagePath(image)+"/capture", req)
}

// Delete removes an image.
func (s Images) Delete(ctx context.Context, image string) (Change, error) {
	return remove[Change](ctx, s.c, imagePath(image))
}
