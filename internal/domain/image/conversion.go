package image

import (
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Conversion is a file of an image in another program's format, of which a job
// makes one that guests can use.
type Conversion struct {
	JobID   id.ID
	ImageID id.ID
	// From is the file as it came.
	From File
}

// Awaits decides whether an image takes a file of a role now.
func (i Image) Awaits(role Role) error {
	switch {
	case !i.Kind.Takes(role):
		return errs.New(errs.InvalidField, "an image of type %s has no %q file; it has: %v", i.Kind, errs.Clip(string(role)), i.Kind.Roles())
	case i.State != Uploading:
		return errs.New(errs.InvalidState, "image %q is %s: its files do not change any more", i.Name, i.State)
	case i.JobID != nil:
		return errs.New(errs.Conflict, "a job brings image %q a file: wait for its end, or cancel it", i.Name).HeldBy(i.JobID.String())
	}
	if _, have := i.File(role); have {
		return errs.New(errs.AlreadyExists, "image %q has its %s already", i.Name, role)
	}
	return nil
}
