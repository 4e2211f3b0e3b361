package control_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// fetched asks for an image's disk by its URL.
func fetched(t *testing.T, c *controltest.Cluster, name, url, sum string) id.ID {
	t.Helper()
	if _, err := c.Service.CreateImage(t.Context(), controltest.Admin(), name, image.Disk, ""); err != nil {
		t.Fatal(err)
	}
	a, err := c.Service.FetchImage(t.Context(), controltest.Admin(), name, flows.FetchParams{Role: image.RoleDisk, URL: url, SHA256: sum})
	if err != nil {
		t.Fatal(err)
	}
	return *a.Job
}

func ended(t *testing.T, c *controltest.Cluster, which id.ID) job.Job {
	t.Helper()
	j, err := c.Service.Job(t.Context(), which)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// A file is read from a URL and is what it must be, or nothing of it is kept.
func TestFetchImage(t *testing.T) {
	c := controltest.New(t, 1)
	raw := bytes.Repeat([]byte("content "), 1024)
	good := fetched(t, c, "good", c.Site(raw), sumOf(raw))
	if _, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), "good"); !errs.Is(err, errs.Conflict) {
		t.Errorf("deleted meanwhile: %v", err)
	}
	other := fetched(t, c, "other", c.Site(raw), strings.Repeat("ab", 32))
	odd := fetched(t, c, "odd", c.Site(raw[:1000]), "")
	broken := fetched(t, c, "broken", c.Site(controltest.BrokenVDI()), "")
	gone := fetched(t, c, "gone", c.Site(raw)+"/none", "")
	late := fetched(t, c, "late", c.Site(raw), "")
	if _, err := c.Service.CancelJob(t.Context(), controltest.Admin(), late); err != nil {
		t.Fatal(err)
	}
	drive(t, c, nil)
	for name, want := range map[id.ID]struct {
		state job.State
		code  errs.Code
	}{
		good: {job.Succeeded, ""}, other: {job.Failed, errs.ImageMismatch}, odd: {job.Failed, errs.InvalidImage},
		broken: {job.Failed, errs.InvalidImage}, gone: {job.Failed, errs.InvalidField}, late: {job.Cancelled, errs.Cancelled},
	} {
		if j := ended(t, c, name); j.State != want.state || j.ErrorCode != string(want.code) && want.state != job.Cancelled {
			t.Errorf("%s: %s %s %s", j.TargetName, j.State, j.ErrorCode, j.ErrorMessage)
		}
	}
	if i := imageIs(t, c, "good"); i.State != image.Ready || i.Files[0].SHA256 != sumOf(raw) || i.Files[0].Format != "raw" {
		t.Errorf("%+v", i)
	}
	if i := imageIs(t, c, "other"); i.State != image.Uploading || i.JobID != nil || len(i.Files) > 0 {
		t.Errorf("%+v", i)
	}
	clean(t, c)
}

// What a URL may not be is refused at once, with the field.
func TestFetchForbidden(t *testing.T) {
	c := controltest.New(t, 1)
	for _, url := range []string{"http://10.0.0.1/a", "file:///etc/passwd", "http://[::1]/", "http://169.254.169.254/"} {
		_, err := c.Service.FetchImage(t.Context(), controltest.Admin(), "none", flows.FetchParams{Role: image.RoleDisk, URL: url})
		if e := errs.As(err); e.Code != errs.URLForbidden || len(e.Fields) != 1 || e.Fields[0].Pointer != "/url" {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// flaky is a web server of one file, that breaks off as ordered and notes where
// readers begin.
type flaky struct {
	mu     sync.Mutex
	file   []byte
	tag    string
	breaks []int // after so many bytes, in turn; hangs at a negative one
	hung   chan struct{}
	begins []string
}

// ServeHTTP implements http.Handler.
func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.begins = append(f.begins, r.Header.Get("Range"))
	n := len(f.file)
	if len(f.breaks) > 0 {
		n, f.breaks = f.breaks[0], f.breaks[1:]
	}
	f.mu.Unlock()
	if f.tag != "" {
		w.Header().Set("ETag", f.tag)
	}
	http.ServeContent(&short{w, max(n, -n), n < 0, r.Context(), f.hung}, r, "", time.Time{}, bytes.NewReader(f.file))
}

// short breaks a connection after some bytes.
type short struct {
	http.ResponseWriter
	left int
	hang bool            // instead
	ctx  context.Context //nolint:containedctx // of the request
	hung chan struct{}
}

// Write implements io.Writer.
func (s *short) Write(p []byte) (int, error) {
	if len(p) <= s.left {
		s.left -= len(p)
		return s.ResponseWriter.Write(p)
	}
	_, _ = s.ResponseWriter.Write(p[:s.left])
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	if s.hang {
		s.hung <- struct{}{}
		<-s.ctx.Done()
	}
	panic(http.ErrAbortHandler)
}

// A connection that breaks is replaced, and the file gone on with where it is the
// same file; otherwise it is read again.
func TestFetchGoesOn(t *testing.T) {
	file := bytes.Repeat([]byte("content "), 64*1024)
	for name, w := range map[string]struct {
		tag    string
		begins []string
	}{
		"the same":    {`"a"`, []string{"", "bytes=100000-", "bytes=200000-"}},
		"no one says": {"", []string{"", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			c := controltest.New(t, 1)
			f := &flaky{file: file, tag: w.tag, breaks: []int{100000, 100000}}
			s := httptest.NewServer(f)
			t.Cleanup(s.Close)
			which := fetched(t, c, "a", s.URL, "")
			drive(t, c, nil)
			if j := ended(t, c, which); j.State != job.Succeeded || imageIs(t, c, "a").Files[0].SHA256 != sumOf(file) {
				t.Errorf("%+v", j)
			}
			if !slices.Equal(f.begins, w.begins) {
				t.Errorf("read from %q, want %q", f.begins, w.begins)
			}
			clean(t, c)
		})
	}
}

// A server that dies in the middle is followed by one that goes on from the last
// checkpoint.
func TestFetchOutlivesItsServer(t *testing.T) {
	c := controltest.New(t, 1)
	file := bytes.Repeat([]byte("content "), int(40*unit.MiB/8))
	f := &flaky{file: file, tag: `"a"`, breaks: []int{-int(36 * unit.MiB)}, hung: make(chan struct{}, 1)}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	which := fetched(t, c, "a", s.URL, "")
	ctx, die := context.WithCancel(t.Context())
	go func() {
		<-f.hung
		// once what came is recorded
		for {
			if u, err := c.Store.UploadOfJob(ctx, which); err != nil || u.Offset > 0 {
				break
			}
		}
		die()
	}()
	if err := c.Drive(ctx); err == nil {
		t.Fatal("the server did not die")
	}
	drive(t, c, nil)
	if j := ended(t, c, which); j.State != job.Succeeded || imageIs(t, c, "a").Files[0].SHA256 != sumOf(file) {
		t.Errorf("%+v", j)
	}
	if len(f.begins) != 2 || f.begins[1] != "bytes=33554432-" {
		t.Errorf("read from %q", f.begins)
	}
	clean(t, c)
}
