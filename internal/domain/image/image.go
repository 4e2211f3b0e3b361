// Package image holds the rules of images: what VMs are made from.
package image

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Kind says how a guest starts from the image.
type Kind string

// The kinds of image.
const (
	Disk   Kind = "disk"   // one disk image, booted by firmware
	Kernel Kind = "kernel" // a kernel and an initrd, given to the machine directly
	ISO    Kind = "iso"    // a CD, which a guest finds in its drive
)

// Role is the part a file plays in an image.
type Role string

// The roles of files.
const (
	RoleDisk   Role = "disk"
	RoleKernel Role = "kernel"
	RoleInitrd Role = "initrd"
	RoleISO    Role = "iso"
)

// State is how far an image is.
type State string

// The states of an image.
const (
	Uploading State = "uploading"
	Ready     State = "ready"
	Deleting  State = "deleting"
)

// Image is what VMs are made from.
type Image struct {
	ID        id.ID
	ProjectID id.ID
	Name      string
	// Aliases are further names it answers to, sorted.
	Aliases []string
	Kind    Kind
	State   State
	// Cmdline is the kernel's, for Kernel images.
	Cmdline   string
	Files     []File
	JobID     *id.ID
	Revision  gen.Revision
	CreatedAt time.Time
	UpdatedAt time.Time
}

// File is one file of an image, named by its content.
type File struct {
	Role      Role
	SHA256    string
	SizeBytes int64
	// Format was decided by our inspector at import and is always passed on.
	Format string
	// VirtualBytes is what a guest sees of a disk or CD; 0 for kernel and initrd.
	VirtualBytes int64
	// Source is what the file was made from; nil when it came as it is.
	Source *Source
}

// Source is a file that was converted when it was imported.
type Source struct {
	SHA256 string
	Format string
}

// maxCmdline is x86's COMMAND_LINE_SIZE less room for what we add.
const maxCmdline = 1024

// Roles lists the files an image of the kind needs.
func (k Kind) Roles() []Role {
	switch k {
	case Disk:
		return []Role{RoleDisk}
	case Kernel:
		return []Role{RoleKernel, RoleInitrd}
	case ISO:
		return []Role{RoleISO}
	}
	return nil
}

// Takes tells whether an image of the kind has a file of the role.
func (k Kind) Takes(r Role) bool {
	return slices.Contains(k.Roles(), r)
}

// Validate checks a new image's name, kind and command line.
func Validate(name string, kind Kind, cmdline string) error {
	if err := id.CheckName("/name", name); err != nil {
		return err
	}
	if kind.Roles() == nil {
		return errs.New(errs.InvalidField, "an image's kind is disk, kernel or iso").
			At(errs.Field{Pointer: "/kind", Message: "must be disk, kernel or iso", Limit: "disk, kernel, iso", Got: string(kind)})
	}
	if cmdline != "" && kind != Kernel {
		return errs.New(errs.InvalidField, "only a kernel image has a command line").
			At(errs.Field{Pointer: "/cmdline", Message: "is for kind kernel", Got: cmdline})
	}
	if len(cmdline) > maxCmdline || strings.ContainsFunc(cmdline, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errs.New(errs.InvalidField, "a kernel command line is up to %d printable ASCII characters", maxCmdline).
			At(errs.Field{Pointer: "/cmdline", Message: "too long or not printable ASCII", Limit: strconv.Itoa(maxCmdline), Got: cmdline})
	}
	return nil
}

// File gives the file of a role.
func (i Image) File(r Role) (File, bool) {
	for _, f := range i.Files {
		if f.Role == r {
			return f, true
		}
	}
	return File{}, false
}

// Complete tells whether every file the kind needs is there.
func (i Image) Complete() bool {
	for _, r := range i.Kind.Roles() {
		if _, ok := i.File(r); !ok {
			return false
		}
	}
	return true
}
