package image

import (
	"strconv"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// MaxFile bounds one file of an image, in bytes.
const MaxFile = 2 * unit.TiB

// Upload is a file of an image on its way. It belongs to the principal that
// began it, and to nobody else.
type Upload struct {
	ID        id.ID
	ProjectID id.ID
	ImageID   id.ID
	Role      Role
	Principal string
	SizeBytes int64
	// SHA256 is what the sender promises; empty when it promises nothing.
	SHA256 string
	// Offset is how many bytes lie durably in the folder of images, and HashState
	// SHA-256's inner state there.
	Offset    int64
	HashState []byte
	// Validator names the content, of a file that a server reads from elsewhere; empty
	// when it cannot be gone on with.
	Validator string
	// Server is the address of the server whose folder has the part; empty before
	// there is one.
	Server    string
	CreatedAt time.Time
	// ExpiresAt is when the upload is collected, unless more arrives before.
	ExpiresAt time.Time
}

// Part is a piece of an upload, as its sender announces it.
type Part struct {
	// Offset is where it begins.
	Offset int64
	// Length is how long it is; negative when that is not known yet.
	Length int64
	// Last: does the sender say that the file ends with it?
	Last bool
	// SHA256 is of the whole file, if the sender says so only now.
	SHA256 string
}

// ValidateUpload checks what a new upload announces.
func ValidateUpload(role Role, size int64, sum string) error {
	switch role {
	case RoleDisk, RoleKernel, RoleInitrd, RoleISO:
	default:
		return errs.New(errs.InvalidField, "a file of an image is a disk, a kernel, an initrd or an iso").
			At(errs.Field{Pointer: "/file", Message: "must be disk, kernel, initrd or iso", Limit: "disk, kernel, initrd, iso", Got: string(role)})
	}
	if size < 1 || size > MaxFile {
		return errs.New(errs.OutOfRange, "a file of an image has 1 byte to %s", unit.FormatBytes(MaxFile)).
			At(errs.Field{Pointer: "/size_bytes", Message: "is out of range", Limit: "1 to " + strconv.FormatInt(MaxFile, 10), Got: strconv.FormatInt(size, 10)})
	}
	if sum != "" && !ValidSum(sum) {
		return errs.New(errs.InvalidField, "a SHA-256 is 64 hexadecimal digits in lower case").
			At(errs.Field{Pointer: "/sha256", Message: "is not a SHA-256", Got: sum})
	}
	return nil
}

// ValidateFetch checks what is asked of a fetch, but for its URL.
func ValidateFetch(role Role, sum string) error { return ValidateUpload(role, 1, sum) }

// Admit decides, before a byte of it is read, whether a part goes on where the
// upload stands and fits into the file.
func (u Upload) Admit(p Part) error {
	if p.Offset != u.Offset {
		what := "leaves a gap"
		if p.Offset < u.Offset {
			what = "overlaps what is there"
		}
		return errs.New(errs.OffsetMismatch, "the part begins at byte %d, which %s: go on at byte %d", p.Offset, what, u.Offset).
			At(errs.Field{Pointer: "Upload-Offset", Message: what, Limit: strconv.FormatInt(u.Offset, 10), Got: strconv.FormatInt(p.Offset, 10)})
	}
	if u.SHA256 != "" && p.SHA256 != "" && u.SHA256 != p.SHA256 {
		return errs.New(errs.ImageMismatch, "this part promises another SHA-256 than the upload: begin a new upload for another file").
			At(errs.Field{Pointer: "Digest", Message: "is another than was promised", Limit: u.SHA256, Got: p.SHA256})
	}
	if p.Length < 0 {
		return nil
	}
	return u.Ends(p.Offset+p.Length, p.Last)
}

// Ends decides whether a part may end at a byte. last says that the sender means
// it to be the end of the file.
func (u Upload) Ends(at int64, last bool) error {
	if at <= u.SizeBytes && (!last || at == u.SizeBytes) {
		return nil
	}
	return errs.New(errs.LengthMismatch, "the file has %d bytes, as was said when the upload began, and this part ends at byte %d", u.SizeBytes, at).
		At(errs.Field{Pointer: "Content-Length", Message: "does not lead to the end that was announced", Limit: strconv.FormatInt(u.SizeBytes-u.Offset, 10), Got: strconv.FormatInt(at-u.Offset, 10)})
}

// Check decides, once every byte is there, whether the file is what was promised.
func (u Upload) Check(sum, late string) error {
	want := u.SHA256
	if want == "" {
		want = late
	}
	if want == "" || want == sum {
		return nil
	}
	return errs.New(errs.ImageMismatch, "the file arrived as SHA-256 %s, not as promised: the upload is removed, begin it again", sum).
		At(errs.Field{Pointer: "/sha256", Message: "is of another content", Limit: want, Got: sum})
}

// ValidSum tells whether a text is a SHA-256 as we write it.
func ValidSum(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
