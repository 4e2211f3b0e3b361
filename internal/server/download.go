package server

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func (s *Server) downloadRoutes() []Route {
	return []Route{raw(Route{
		Method: "GET", Path: "/api/v1/images/{image}/files/{role}", ID: "getImageFile",
		Summary: "Read a file of an image; its ETag is its SHA-256, a Range goes on where a reading broke off, HEAD gives the headers alone",
		Need:    auth.Need{Resource: auth.Storage, Action: auth.Read}, stream: "the file's bytes",
	}, s.getImageFile)}
}

// getImageFile sends a file of an image, or the part of it that is asked for.
func (s *Server) getImageFile(w http.ResponseWriter, r *Request) error {
	asked := oneRange(r.Header)
	f, file, err := s.control.OpenImageFile(r.Context(), r.Caller, r.Arg("image"), image.Role(r.Arg("role")), asked)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := inside(asked, f.SizeBytes); err != nil {
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(f.SizeBytes, 10))
		return err
	}
	r.park() // the bytes go as slowly as they are taken
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", strconv.Quote(f.SHA256))
	h.Set("Digest", "sha-256="+f.SHA256)
	h.Set("Cache-Control", "private, no-cache")
	http.ServeContent(w, r.Request, "", time.Time{}, file)
	return nil
}

// simpleRange is a range as whoever resumes asks for it.
var simpleRange = regexp.MustCompile(`^bytes=([0-9]{1,18})-([0-9]{1,18})?$`)

// oneRange gives the range of a request. Any other than one that begins at a byte is
// as if it was not there (RFC 9110, section 14.2): the whole file is sent.
func oneRange(h http.Header) string {
	asked := h.Get("Range")
	m := simpleRange.FindStringSubmatch(asked)
	if m == nil || len(h.Values("Range")) != 1 || (m[2] != "" && number(m[2]) < number(m[1])) {
		h.Del("Range")
		return ""
	}
	return asked
}

// inside refuses a range that begins at or behind the file's end.
func inside(asked string, size int64) error {
	m := simpleRange.FindStringSubmatch(asked)
	if m == nil || number(m[1]) < size {
		return nil
	}
	return errs.New(errs.RangeNotSatisfiable, "the file has %d bytes: there is none at %s", size, m[1]).
		At(errs.Field{Pointer: "Range", Message: "begins behind the end", Limit: strconv.FormatInt(size, 10), Got: strings.TrimPrefix(asked, "bytes=")})
}

// number reads up to 18 digits, which fit.
func number(digits string) int64 {
	n, _ := strconv.ParseInt(digits, 10, 64)
	return n
}
