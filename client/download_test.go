package client_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// library is a server of one image with one file, that breaks connections, lies and
// forgets as ordered.
type library struct {
	mu sync.Mutex
	// breaks is after how many bytes of an answer the connection ends, in turn
	breaks []int
	// lies is how many answers hold other bytes; deaf answers ignore ranges
	lies   int
	deaf   bool
	ranges []string
}

var book = strings.Repeat("what an image is made of, ", 40000)

// ServeHTTP implements http.Handler.
func (l *library) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.URL.Path {
	case "/api/v1/images/i":
		answer(w, 200, api.Image{Meta: api.Meta{ID: "i", Name: "i"}, Status: api.ImageStatus{
			State: "ready", Files: []api.ImageFile{{Role: "disk", SHA256: sumOf(book), SizeBytes: api.Bytes(len(book))}},
		}})
	case "/api/v1/images/i/files/disk":
		l.file(w, r)
	default:
		answer(w, 404, api.Error{Status: 404, Code: "not_found"})
	}
}

func (l *library) file(w http.ResponseWriter, r *http.Request) {
	l.ranges = append(l.ranges, r.Header.Get("Range"))
	text := book
	if l.lies > 0 {
		l.lies--
		text = strings.ToUpper(book)
	}
	if l.deaf {
		r.Header.Del("Range")
	}
	if len(l.breaks) > 0 {
		w = &cutting{w, l.breaks[0]}
		l.breaks = l.breaks[1:]
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
}

// cutting ends the connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

// Write implements io.Writer.
func (b *cutting) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	_, _ = b.ResponseWriter.Write(p[:n])
	if b.left -= n; b.left == 0 {
		_ = http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// A download goes on where it broke off, in this process or another, is held against
// its hash, and is there whole or not at all.
func TestDownloadGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		library *library
		left    string // by an earlier run
		ranges  []string
		code    string
		keeps   bool // what came, for the next run
	}{
		"at once":                 {library: &library{}, ranges: []string{""}},
		"over three connections":  {library: &library{breaks: []int{300000, 100000}}, ranges: []string{"", "bytes=300000-", "bytes=400000-"}},
		"after another run":       {library: &library{}, left: book[:77777], ranges: []string{"bytes=77777-"}},
		"whole after another run": {library: &library{}, left: book},
		"after a run of another":  {library: &library{}, left: "something else", ranges: []string{"bytes=14-", ""}},
		"too long":                {library: &library{}, left: book + "x", ranges: []string{""}},
		"a lie":                   {library: &library{lies: 1}, ranges: []string{""}, code: client.CodeBadAnswer},
		"a lie after a break":     {library: &library{lies: 1, breaks: []int{500000}}, ranges: []string{"", "bytes=500000-"}, code: client.CodeBadAnswer},
		"deaf to ranges":          {library: &library{deaf: true, breaks: []int{500000}}, ranges: []string{"", "bytes=500000-"}, code: client.CodeBadAnswer, keeps: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			if c.left != "" {
				if err := os.WriteFile(path+".part", []byte(c.left), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var told int64
			f, err := local(t, c.library).Images.DownloadFile(t.Context(), "i", "disk", path, func(n int64) { told = n })
			if client.CodeOf(err) != c.code || (c.code == "" && err != nil) {
				t.Fatalf("%v, want %q", err, c.code)
			}
			if !slices.Equal(c.library.ranges, c.ranges) {
				t.Errorf("asked for %q, want %q", c.library.ranges, c.ranges)
			}
			part, _ := os.ReadFile(path + ".part")
			got, err := os.ReadFile(path)
			if c.code != "" {
				if err == nil || (len(part) > 0) != c.keeps {
					t.Errorf("after a failure there is a file (%v), and %d bytes of a part", err, len(part))
				}
				return
			}
			if err != nil || !bytes.Equal(got, []byte(book)) || part != nil || f.SHA256 != sumOf(book) {
				t.Errorf("%d bytes, %v, %d of a part, %+v", len(got), err, len(part), f)
			}
			if len(c.ranges) > 0 && told != int64(len(book)) {
				t.Errorf("told of %d bytes", told)
			}
		})
	}
}

// What is not there, and a caller who goes, are said by code; what came is kept.
func TestDownloadFails(t *testing.T) {
	l := &library{breaks: []int{100000}}
	c, path := local(t, l), filepath.Join(t.TempDir(), "disk")
	if _, err := c.Images.DownloadFile(t.Context(), "i", "kernel", path, nil); client.CodeOf(err) != "not_found" {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := c.Images.DownloadFile(t.Context(), "j", "disk", path, nil); client.CodeOf(err) != "not_found" {
		t.Errorf("an image that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Images.DownloadFile(ctx, "i", "disk", path, func(n int64) {
		if n == 100000 {
			cancel()
		}
	})
	if part, _ := os.ReadFile(path + ".part"); client.CodeOf(err) != client.CodeInterrupted || len(part) != 100000 {
		t.Errorf("interrupted: %v, %d bytes are kept", err, len(part))
	}
	body, err := c.Images.OpenFile(t.Context(), "i", "disk", int64(len(book)-5))
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if b, err := io.ReadAll(body); err != nil || string(b) != book[len(book)-5:] {
		t.Errorf("%q %v", b, err)
	}
}
