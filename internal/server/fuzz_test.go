package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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

// Of a range that is taken, the part it names lies in the file; any other is as if it
// was not there.
func FuzzRange(f *testing.F) {
	f.Add("bytes=0-", int64(10))
	f.Add("bytes=5-9", int64(5))
	f.Add("bytes=9-5", int64(100))
	f.Add("bytes=999999999999999999-", int64(1))
	f.Fuzz(func(t *testing.T, asked string, size int64) {
		h := http.Header{"Range": {asked}}
		got := oneRange(h)
		if (got == "") != (h.Get("Range") == "") || (got != "" && got != asked) {
			t.Errorf("%q is taken as %q, and goes on as %q", asked, got, h.Get("Range"))
		}
		err := inside(got, max(size, 1))
		if err != nil && !errs.Is(err, errs.RangeNotSatisfiable) {
			t.Errorf("%q: %v", asked, err)
		}
		if got == "" || err != nil {
			return
		}
		w := httptest.NewRecorder()
		http.ServeContent(w, &http.Request{Method: http.MethodHead, Header: h}, "", time.Time{}, io.NewSectionReader(zeros{}, 0, max(size, 1)))
		if w.Code != http.StatusPartialContent {
			t.Errorf("%q of %d bytes: %d", asked, size, w.Code)
		}
	})
}

// zeros is a file without an end.
type zeros struct{}

// ReadAt implements io.ReaderAt.
func (zeros) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
