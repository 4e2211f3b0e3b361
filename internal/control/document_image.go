package control

import (
	"context"
	"slices"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// imageApplier holds an image against its document, since content never comes
// with it, and gives it the aliases that are declared.
type imageApplier struct {
	s *Service
	d Document
}

func (a imageApplier) apply(ctx context.Context, tx *store.Tx, c Caller, _ ApplyOptions) (Applied, error) {
	if err := c.may(auth.Need{Resource: auth.Storage, Action: auth.Read}); err != nil {
		return Applied{}, err
	}
	i, err := tx.ImageGet(ctx, a.s.cfg.Project, a.d.Name)
	switch {
	case errs.Is(err, errs.NotFound):
		return Applied{}, a.d.Image.Missing(a.d.Name)
	case err == nil && i.Name != a.d.Name:
		err = errs.New(errs.Conflict, "%q is an alias of image %q: a document goes by an image's own name", a.d.Name, i.Name)
	case err == nil:
		err = a.d.is(i.ID, int64(i.Revision))
	}
	if err == nil {
		err = within(a.d.Image.Is(i), "")
	}
	if err != nil {
		return Applied{}, err
	}
	out := Applied{Action: ActionNone, Before: i, After: i, Object: &i.ID}
	add, remove := a.d.Image.AliasChanges(i)
	if len(add)+len(remove) == 0 {
		return out, nil
	}
	out.Action = ActionChange
	if err := c.may(auth.Need{Resource: auth.Storage, Action: auth.Update}); err != nil {
		return out, err
	}
	i, err = a.s.alias(ctx, tx, c, i, add, remove)
	out.After = i
	return out, within(err, "/aliases")
}

// alias makes changes of an image's aliases, and gives it with what it has then.
func (s *Service) alias(ctx context.Context, tx *store.Tx, c Caller, i image.Image, add, remove []string) (image.Image, error) {
	for _, name := range remove {
		if err := removeAlias(ctx, tx, c, i, name); err != nil {
			return i, err
		}
		i.Aliases = slices.DeleteFunc(slices.Clone(i.Aliases), func(has string) bool { return has == name })
	}
	for _, name := range add {
		if err := s.setAlias(ctx, tx, c, i, name); err != nil {
			return i, err
		}
		i.Aliases = append(slices.Clone(i.Aliases), name)
	}
	slices.Sort(i.Aliases)
	return i, nil
}
