package image

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestValidateUpload(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, c := range []struct {
		role Role
		size int64
		sum  string
		want errs.Code
	}{
		{RoleDisk, 1, "", ""},
		{RoleInitrd, MaxFile, sum, ""},
		{"", 1, "", errs.InvalidField},
		{"../disk", 1, "", errs.InvalidField},
		{RoleDisk, 0, "", errs.OutOfRange},
		{RoleDisk, -1, "", errs.OutOfRange},
		{RoleDisk, MaxFile + 1, "", errs.OutOfRange},
		{RoleDisk, 1, sum[1:], errs.InvalidField},
		{RoleDisk, 1, strings.ToUpper(sum), errs.InvalidField},
	} {
		if got := errs.CodeOf(ValidateUpload(c.role, c.size, c.sum)); got != c.want {
			t.Errorf("%q of %d bytes, %q: %q, want %q", c.role, c.size, c.sum, got, c.want)
		}
	}
}

// A part goes on exactly where the upload stands, and into the file.
func TestAdmit(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	u := Upload{SizeBytes: 100, Offset: 40, SHA256: a}
	for name, c := range map[string]struct {
		part Part
		want errs.Code
	}{
		"Next":          {Part{Offset: 40, Length: 10}, ""},
		"Rest":          {Part{Offset: 40, Length: 60, Last: true, SHA256: a}, ""},
		"Nothing":       {Part{Offset: 40}, ""},
		"UnknownLength": {Part{Offset: 40, Length: -1, Last: true}, ""},
		"Gap":           {Part{Offset: 41, Length: 1}, errs.OffsetMismatch},
		"Overlap":       {Part{Offset: 39, Length: 1}, errs.OffsetMismatch},
		"FromTheStart":  {Part{Offset: 0, Length: 100}, errs.OffsetMismatch},
		"TooLong":       {Part{Offset: 40, Length: 61}, errs.LengthMismatch},
		"EndsTooEarly":  {Part{Offset: 40, Length: 59, Last: true}, errs.LengthMismatch},
		"AnotherFile":   {Part{Offset: 40, Length: 60, SHA256: b}, errs.ImageMismatch},
	} {
		err := u.Admit(c.part)
		if got := errs.CodeOf(err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if c.want == errs.OffsetMismatch && errs.As(err).Fields[0].Limit != "40" {
			t.Errorf("%s: the right offset is not told: %+v", name, errs.As(err).Fields)
		}
	}
}

func TestCheck(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, c := range []struct {
		promised, late, got string
		ok                  bool
	}{
		{"", "", a, true},
		{a, "", a, true},
		{"", a, a, true},
		{a, a, b, false},
		{"", b, a, false},
	} {
		if err := (Upload{SHA256: c.promised}).Check(c.got, c.late); (err == nil) != c.ok || (err != nil && !errs.Is(err, errs.ImageMismatch)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
