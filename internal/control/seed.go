package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// cd finds a CD that a VM is to have, and keeps it from being deleted until the
// transaction ends; nil for an empty reference. at is where a request names it.
func (s *Service) cd(ctx context.Context, tx *store.Tx, ref, at string) (*vm.CD, error) {
	if ref == "" {
		return nil, nil
	}
	img, err := tx.ImageUse(ctx, s.cfg.Project, ref)
	if err != nil {
		return nil, err
	}
	if img.Kind != image.ISO {
		return nil, errs.New(errs.InvalidField, "image %q is a %s, not a CD: import one with 'novacron image import NAME --iso FILE'", img.Name, img.Kind).
			At(errs.Field{Pointer: at, Message: "is no CD", Limit: string(image.ISO), Got: ref})
	}
	return &vm.CD{ID: img.ID, Name: img.Name}, nil
}

// reseeded gives the intent as a change makes it, with the CD that it names.
func (s *Service) reseeded(ctx context.Context, tx *store.Tx, in vm.Intent, change vm.Change) (vm.Intent, error) {
	next := change.Apply(in)
	if change.SeedImage == nil || !change.Reseeds(in) {
		return next, nil
	}
	var err error
	next.SeedImage, err = s.cd(ctx, tx, *change.SeedImage, "/seed_image")
	return next, err
}

// sameCD writes a reference to the CD that a VM has already as the VM knows it,
// where it is the same one by another name.
func (s *Service) sameCD(ctx context.Context, tx *store.Tx, has *vm.CD, ref *string) (*string, error) {
	if ref == nil || *ref == "" || has == nil || has.Is(*ref) {
		return ref, nil
	}
	i, err := tx.ImageGet(ctx, s.cfg.Project, *ref)
	if err == nil && i.ID == has.ID {
		return &has.Name, nil
	}
	return ref, err
}

// bootable refuses to make a VM of what no guest starts from.
func bootable(img image.Image) error {
	if img.Kind != image.ISO {
		return nil
	}
	return errs.New(errs.InvalidField, "image %q is a CD: a VM finds it in its drive (cdrom or seed_image) and is made from another image", img.Name).
		At(errs.Field{Pointer: "/image", Message: "is a CD", Got: img.Name})
}
