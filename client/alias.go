package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/novacron/novacron/api"
)

func aliasPath(image, alias string) string {
	return imagePath(image) + "/aliases/" + url.PathEscape(alias)
}

// SetAlias gives an image an alias; one that another image has is moved to it.
// VMs stay with the image they were made from.
func (s Images) SetAlias(ctx context.Context, image, alias string) (api.Image, error) {
	var out api.Image
	err := s.c.do(ctx, request{method: http.MethodPut, path: aliasPath(image, alias), safe: true}, &out)
	return out, err
}

// RemoveAlias removes an alias of an image.
func (s Images) RemoveAlias(ctx context.Context, image, alias string) error {
	_, err := remove[struct{}](ctx, s.c, aliasPath(image, alias))
	return err
}
