package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ImageNameHolder tells which image of a project answers to a name, and locks
// the name until the transaction ends; nil when none does.
func (t *Tx) ImageNameHolder(ctx context.Context, project id.ID, name string) (*image.Holder, error) {
	r, err := t.q.ImageNameHolder(ctx, query.ImageNameHolderParams{ProjectID: project, Name: name})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &image.Holder{ImageID: r.ImageID, Image: r.Image, Alias: r.Alias}, pgtx.Map(err)
}

// ImageAliasSet lets an image answer to an alias, and no other image any more.
// from, unless nil, is the image that did.
func (t *Tx) ImageAliasSet(ctx context.Context, i image.Image, alias string, from *image.Holder) error {
	n, err := t.q.ImageAliasSet(ctx, query.ImageAliasSetParams{ProjectID: i.ProjectID, Name: alias, ImageID: i.ID})
	if err == nil && n == 0 {
		return errs.New(errs.AlreadyExists, "there is already an image named %q", alias)
	}
	if err != nil {
		return pgtx.Map(err)
	}
	if from == nil {
		return t.imagesRenamed(ctx, i)
	}
	return t.imagesRenamed(ctx, i, image.Image{ID: from.ImageID, ProjectID: i.ProjectID, Name: from.Image})
}

// ImageAliasRemove removes an alias of an image; errs.NotFound when it has none
// such.
func (t *Tx) ImageAliasRemove(ctx context.Context, i image.Image, alias string) error {
	n, err := t.q.ImageAliasRemove(ctx, query.ImageAliasRemoveParams{ImageID: i.ID, Name: alias})
	if err != nil {
		return pgtx.Map(err)
	}
	if n == 0 {
		return NotFound("alias of image "+i.Name, alias)
	}
	return t.imagesRenamed(ctx, i)
}

// ImageAliasesRemove removes all aliases of an image.
func (t *Tx) ImageAliasesRemove(ctx context.Context, i id.ID) error {
	return pgtx.Map(t.q.ImageAliasesRemove(ctx, i))
}

// imagesRenamed raises the revisions of images whose aliases changed, and tells.
func (t *Tx) imagesRenamed(ctx context.Context, images ...image.Image) error {
	ids := make([]id.ID, len(images))
	for k, i := range images {
		ids[k] = i.ID
	}
	if err := t.q.ImageTouch(ctx, ids); err != nil {
		return pgtx.Map(err)
	}
	for _, i := range images {
		if err := t.ImageChanged(ctx, i, "image.updated"); err != nil {
			return err
		}
	}
	return nil
}
