package controltest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// site is a web server of files.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	s := &site{files: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	tb.Cleanup(s.Close)
	return s
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	b, ok := s.files[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", r.URL.Path))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// Site puts a file on a web server that the cluster may read from, and gives its URL.
func (c *Cluster) Site(b []byte) string {
	c.site.mu.Lock()
	defer c.site.mu.Unlock()
	path := fmt.Sprintf("/%d", len(c.site.files)+1)
	c.site.files[path] = b
	return c.site.URL + path
}
