package image

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// maxAliases bounds what one image answers to.
const maxAliases = 32

// Holder is the image that answers to a name.
type Holder struct {
	ImageID id.ID
	Image   string
	// Alias: is it an alias there, not the image's own name?
	Alias bool
}

// CanTake decides whether the image may get an alias, which holder, unless nil,
// answers to so far. An alias leads only to an image that VMs can be made from.
func (i Image) CanTake(alias string, holder *Holder) error {
	if err := id.CheckName("alias", alias); err != nil {
		return err
	}
	switch {
	case i.State != Ready:
		return errs.New(errs.InvalidState, "image %q is %s: only a ready image gets an alias", i.Name, i.State)
	case holder != nil && !holder.Alias:
		return errs.New(errs.AlreadyExists, "there is already an image named %q", alias).
			At(errs.Field{Pointer: "alias", Message: "is an image's own name", Got: alias})
	case holder != nil && holder.ImageID == i.ID:
		return nil
	case len(i.Aliases) >= maxAliases:
		return errs.New(errs.OutOfRange, "image %q has %d aliases, and may not have more", i.Name, len(i.Aliases)).
			At(errs.Field{Pointer: "alias", Message: "is one too many", Limit: strconv.Itoa(maxAliases)})
	}
	return nil
}

// Deletable decides whether an image can be deleted that was named by ref; users
// are some of the VMs made from it, of total. An alias is no name to delete by:
// it may have been moved since one looked.
func Deletable(i Image, ref string, users []string, total int64) error {
	if ref != i.Name && ref != i.ID.String() {
		return errs.New(errs.Conflict, "%q is an alias of image %q: delete that by its own name, or remove the alias", ref, i.Name)
	}
	if total == 0 {
		return nil
	}
	vms := "1 VM is"
	if total > 1 {
		vms = strconv.FormatInt(total, 10) + " VMs are"
	}
	if more := total - int64(len(users)); more > 0 {
		users = append(slices.Clip(users), fmt.Sprintf("and %d more", more))
	}
	return errs.New(errs.InUse, "%s made from image %q: delete what is made from it first", vms, i.Name).BlockedBy(users...)
}
