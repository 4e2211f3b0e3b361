package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// What the headers of a part say is refused by code, or describes a part that can be.
func FuzzUploadHeaders(f *testing.F) {
	f.Add("0", "?1", "sha-256="+strings.Repeat("ab", 32))
	f.Add("9223372036854775807", "?0", "")
	f.Add("-0", "", "SHA-256=")
	f.Add("+1", "?2", "md5=")
	f.Fuzz(func(t *testing.T, offset, complete, sum string) {
		r := &Request{Request: &http.Request{Header: http.Header{}}}
		r.Header.Set(offsetHeader, offset)
		r.Header.Set(completeHeader, complete)
		r.Header.Set("Digest", sum)
		p, err := readPart(r)
		if err != nil {
			if !errs.Is(err, errs.InvalidField) {
				t.Errorf("%q %q %q: %v", offset, complete, sum, err)
			}
			return
		}
		if p.Offset < 0 || (p.SHA256 != "" && len(p.SHA256) != 64) || p.Last != (complete == "?1") {
			t.Errorf("%q %q %q: %+v", offset, complete, sum, p)
		}
	})
}

// The API's types and the floors below read the same sizes.
func FuzzSizes(f *testing.F) {
	for _, s := range []string{"1GiB", " 7 B ", "8192PiB", "٣GiB", "+1", "", "\u00a01KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		below, refused := unit.ParseBytes(s)
		at, err := api.ParseBytes(s)
		if (err == nil) != (refused == nil) || (err == nil && int64(at) != below) {
			t.Errorf("%q: the API reads %d, %v; the floors below %d, %v", s, at, err, below, refused)
		}
	})
}
