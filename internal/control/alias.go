package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/store"
)

// SetAlias lets an image answer to an alias. One that another image has is moved
// in the same transaction: at no moment does it lead nowhere. VMs keep the image
// they were made from.
func (s *Service) SetAlias(ctx context.Context, c Caller, ref, alias string) (image.Image, error) {
	err := s.change(ctx, func(tx *store.Tx) error {
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return err
		}
		return s.setAlias(ctx, tx, c, i, alias)
	})
	if err != nil {
		return image.Image{}, err
	}
	return s.Image(ctx, alias)
}

func (s *Service) setAlias(ctx context.Context, tx *store.Tx, c Caller, i image.Image, alias string) error {
	holder, err := tx.ImageNameHolder(ctx, s.cfg.Project, alias)
	if err != nil {
		return err
	}
	if err := i.CanTake(alias, holder); err != nil {
		return err
	}
	detail := map[string]any{"alias": alias}
	switch {
	case holder != nil && holder.ImageID == i.ID:
		return nil // it is so already
	case holder != nil:
		detail["from"] = holder.Image
	}
	if err := tx.ImageAliasSet(ctx, i, alias, holder); err != nil {
		return err
	}
	r := c.record("image.alias.set", "image", i.ID, i.Name)
	r.ProjectID, r.Detail = &i.ProjectID, detail
	return tx.AuditInsert(ctx, r)
}

// RemoveAlias removes an alias of an image.
func (s *Service) RemoveAlias(ctx context.Context, c Caller, ref, alias string) error {
	return s.change(ctx, func(tx *store.Tx) error {
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return err
		}
		return removeAlias(ctx, tx, c, i, alias)
	})
}

func removeAlias(ctx context.Context, tx *store.Tx, c Caller, i image.Image, alias string) error {
	if err := tx.ImageAliasRemove(ctx, i, alias); err != nil {
		return err
	}
	r := c.record("image.alias.remove", "image", i.ID, i.Name)
	r.ProjectID, r.Detail = &i.ProjectID, map[string]any{"alias": alias}
	return tx.AuditInsert(ctx, r)
}
