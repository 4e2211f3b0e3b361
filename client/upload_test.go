package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// shelf is a server of one image with one upload, that breaks connections as
// ordered. What it keeps is what a client must send.
type shelf struct {
	mu     sync.Mutex
	up     *api.ImageUpload
	got    bytes.Buffer
	whole  string
	breaks []int // after so many bytes of a part, in turn
	mute   bool  // the answer to the last part is lost
	starts []int
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/i"):
		s.image(w)
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/uploads"):
		var all []api.ImageUpload
		if s.up != nil {
			all = append(all, *s.up)
		}
		answer(w, 200, api.List[api.ImageUpload]{Items: all})
	case r.Method == http.MethodPost:
		s.up, s.got = &api.ImageUpload{ID: "u", File: "disk", SizeBytes: api.Bytes(len(content)), SHA256: sumOf(content)}, bytes.Buffer{}
		answer(w, 201, s.up)
	case s.up == nil:
		answer(w, 404, api.Error{Status: 404, Code: "not_found"})
	case r.Method == http.MethodGet:
		answer(w, 200, s.up)
	case r.Method == http.MethodDelete:
		s.up = nil
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch:
		s.part(w, r)
	}
}

const content = "a disk, of a kind"

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (s *shelf) image(w http.ResponseWriter) {
	img := api.Image{Status: api.ImageStatus{State: "uploading"}}
	if s.whole != "" {
		img.Status = api.ImageStatus{State: "ready", Files: []api.ImageFile{{Role: "disk", SHA256: sumOf(s.whole)}}}
	}
	answer(w, 200, img)
}

func (s *shelf) part(w http.ResponseWriter, r *http.Request) {
	at, _ := strconv.Atoi(r.Header.Get("Upload-Offset"))
	s.starts = append(s.starts, at)
	if at != s.got.Len() {
		answer(w, 409, api.Error{Status: 409, Code: "offset_mismatch", Errors: []api.FieldError{{Limit: strconv.Itoa(s.got.Len())}}})
		return
	}
	if len(s.breaks) > 0 {
		_, _ = io.CopyN(&s.got, r.Body, int64(s.breaks[0]))
		s.breaks, s.up.OffsetBytes = s.breaks[1:], api.Bytes(s.got.Len())
		breaks(w)
		return
	}
	_, _ = io.Copy(&s.got, r.Body)
	done := *s.up
	done.OffsetBytes, done.Complete = api.Bytes(s.got.Len()), true
	s.whole, s.up = s.got.String(), nil
	if s.mute {
		breaks(w)
		return
	}
	answer(w, 200, done)
}

// An upload goes on where it broke off, by this client or an earlier one, and
// ends well although the answer to its last part is lost.
func TestUploadGoesOn(t *testing.T) {
	mine := func(sum string) *api.ImageUpload {
		return &api.ImageUpload{ID: "u", File: "disk", SizeBytes: api.Bytes(len(content)), SHA256: sum}
	}
	for name, c := range map[string]struct {
		shelf  *shelf
		before string // what an earlier client sent
		starts []int
	}{
		"AtOnce":         {&shelf{}, "", []int{0}},
		"Broken":         {&shelf{breaks: []int{3, 4}}, "", []int{0, 3, 7}},
		"AnswerLost":     {&shelf{mute: true}, "", []int{0}},
		"Earlier":        {&shelf{up: mine(sumOf(content))}, "a disk", []int{0, 6}},
		"AnotherContent": {&shelf{up: mine(sumOf("a disc"))}, "a disc", []int{0}},
		"ThereAlready":   {&shelf{whole: content}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.shelf
			s.got.WriteString(c.before)
			cl := local(t, s)
			var sent int64
			img, err := cl.Images.Upload(t.Context(), "i", "disk", strings.NewReader(content), int64(len(content)), func(n int64) { sent = n })
			if err != nil || img.Status.State != "ready" || s.whole != content {
				t.Fatalf("%v %+v, arrived %q", err, img.Status, s.whole)
			}
			if c.starts != nil && sent != int64(len(content)) {
				t.Errorf("progress ended at %d", sent)
			}
			if len(s.starts) != len(c.starts) {
				t.Fatalf("parts began at %v, want %v", s.starts, c.starts)
			}
			for i := range s.starts {
				if s.starts[i] != c.starts[i] {
					t.Errorf("parts began at %v, want %v", s.starts, c.starts)
				}
			}
		})
	}
}

// A refusal ends an upload at once; so does its context, and a folder is no file.
func TestUploadEnds(t *testing.T) {
	tries := 0
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			answer(w, 200, map[string]any{})
		case http.MethodPost:
			answer(w, 201, api.ImageUpload{ID: "u"})
		default:
			tries++
			answer(w, 422, api.Error{Status: 422, Code: "image_mismatch"})
		}
	}))
	send := func(ctx context.Context) error {
		_, err := c.Images.Upload(ctx, "i", "disk", strings.NewReader(content), int64(len(content)), nil)
		return err
	}
	if err := send(t.Context()); client.CodeOf(err) != "image_mismatch" || tries != 1 {
		t.Errorf("refused: %v after %d tries", err, tries)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := send(over); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if _, err := c.Images.UploadFile(t.Context(), "i", "disk", t.TempDir(), nil); client.CodeOf(err) != client.CodeInvalidConfig {
		t.Errorf("a folder as an image: %v", err)
	}
}

// Of several servers that do not share what arrived, the one that has it is gone
// on with; where there is no other, the refusal names it.
func TestUploadGoesWhereItIs(t *testing.T) {
	s := &shelf{up: &api.ImageUpload{ID: "u", File: "disk", SizeBytes: api.Bytes(len(content)), SHA256: sumOf(content), OffsetBytes: 6}}
	s.got.WriteString(content[:6])
	without := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			answer(w, http.StatusMisdirectedRequest, api.Error{Status: 421, Code: "wrong_server", Blockers: []string{"there"}})
			return
		}
		s.ServeHTTP(w, r)
	})
	alone := local(t, without)
	send := func(c *client.Client) error {
		_, err := c.Images.Upload(t.Context(), "i", "disk", strings.NewReader(content), int64(len(content)), nil)
		return err
	}
	if err := send(alone); client.CodeOf(err) != "wrong_server" {
		t.Errorf("with no other server: %v", err)
	}
	a, b := httptest.NewUnstartedServer(without), httptest.NewUnstartedServer(s)
	fp := serve(t, a)
	b.TLS = a.TLS.Clone() // two servers of one cluster
	b.StartTLS()
	t.Cleanup(b.Close)
	c := dial(t, client.Config{Addresses: []string{a.Listener.Addr().String(), b.Listener.Addr().String()}, Fingerprint: fp})
	if err := send(c); err != nil || s.whole != content || len(s.starts) != 1 || s.starts[0] != 6 {
		t.Errorf("%v, arrived %q, parts began at %v", err, s.whole, s.starts)
	}
}
