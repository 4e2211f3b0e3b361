package image

import (
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Want is an image as somebody declares it. Nil fields are not declared. Its
// content is named and never comes with it.
type Want struct {
	Kind    *Kind
	Cmdline *string
	Files   *[]WantFile
	// Aliases are all that it answers to.
	Aliases *[]string
}

// WantFile is a file by its content.
type WantFile struct {
	Role   Role
	SHA256 string
}

// Missing says what has to be imported for an image that is not there.
func (w Want) Missing(name string) error {
	flags, content := "--disk FILE", ""
	if w.Kind != nil && *w.Kind == ISO {
		flags = "--iso FILE"
	}
	if w.Kind != nil && *w.Kind == Kernel {
		flags = "--kernel FILE --initrd FILE"
		if w.Cmdline != nil && *w.Cmdline != "" {
			flags += " --cmdline TEXT"
		}
	}
	if w.Files != nil {
		var parts []string
		for _, f := range *w.Files {
			parts = append(parts, string(f.Role)+" "+errs.Clip(f.SHA256))
		}
		content = " (SHA-256: " + strings.Join(parts, ", ") + ")"
	}
	return errs.New(errs.NotFound, "image %q is not here, and a document does not hold its content%s: import it first with 'novacron image import %s %s'", name, content, name, flags)
}

// Is refuses what is not so of an image: none of it changes once it is there.
func (w Want) Is(i Image) error {
	switch {
	case i.State == Deleting:
		return errs.New(errs.InvalidState, "image %q is being deleted", i.Name)
	case w.Kind != nil && *w.Kind != i.Kind:
		return fixed(i, "/type", string(i.Kind))
	case w.Cmdline != nil && *w.Cmdline != i.Cmdline:
		return fixed(i, "/cmdline", i.Cmdline)
	case w.Files != nil:
		return w.contentIs(i)
	}
	return nil
}

func (w Want) contentIs(i Image) error {
	if i.State != Ready {
		return errs.New(errs.InvalidState, "image %q is %s: its content is not all here yet", i.Name, i.State)
	}
	for _, f := range *w.Files {
		has, ok := i.File(f.Role)
		if !ok || !strings.EqualFold(has.SHA256, f.SHA256) {
			return errs.New(errs.ImageMismatch, "image %q has another %s than the document names: delete it and import the one that is meant, or import that under another name", i.Name, errs.Clip(string(f.Role))).
				At(errs.Field{Pointer: "/files", Message: "is other content", Limit: has.SHA256, Got: f.SHA256})
		}
	}
	return nil
}

// AliasChanges tells which aliases an image lacks, and which it has beyond those
// that are declared.
func (w Want) AliasChanges(i Image) (add, remove []string) {
	if w.Aliases == nil {
		return nil, nil
	}
	for _, a := range *w.Aliases {
		if !slices.Contains(i.Aliases, a) && !slices.Contains(add, a) {
			add = append(add, a)
		}
	}
	for _, a := range i.Aliases {
		if !slices.Contains(*w.Aliases, a) {
			remove = append(remove, a)
		}
	}
	return add, remove
}

func fixed(i Image, at, is string) error {
	return errs.New(errs.FieldNotWritable, "image %q does not change once it is made: its %s is %q", i.Name, strings.TrimPrefix(at, "/"), is).
		At(errs.Field{Pointer: at, Message: "does not change", Limit: is})
}
