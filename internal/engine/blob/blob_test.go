package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func names(t *testing.T, path string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func sumOf(s string) string {
	b := sha256.Sum256([]byte(s))
	return hex.EncodeToString(b[:])
}

func TestKeepAndDiscard(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	for range 2 { // content that is there already is no error
		u, err := d.Receive(t.Context(), strings.NewReader("content"), 100)
		if err != nil {
			t.Fatal(err)
		}
		if u.SHA256 != sumOf("content") || u.Size != 7 {
			t.Errorf("%+v", u)
		}
		if _, err := io.ReadAll(io.NewSectionReader(u.File(), 0, u.Size)); err != nil {
			t.Error(err)
		}
		if err := u.Keep(); err != nil {
			t.Fatal(err)
		}
		u.Discard()
		u.Discard()
	}
	u, err := d.Receive(t.Context(), strings.NewReader("other"), 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(u.SHA256); !errs.Is(err, errs.NotFound) {
		t.Errorf("what is not kept is visible: %v", err)
	}
	u.Discard()
	if got := names(t, path); len(got) != 1 || got[0] != sumOf("content") {
		t.Errorf("left %v", got)
	}
	f, err := d.Open(sumOf("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("%q %v", b, err)
	}
	if list, err := d.List(); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	for range 2 {
		if err := d.Remove(sumOf("content")); err != nil {
			t.Error(err)
		}
	}
}

// Bodies that break off, come too long or not at all leave nothing, and say what
// was wrong with them.
func TestBadBodies(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		body io.Reader
		want errs.Code
	}{
		"Empty":     {t.Context(), strings.NewReader(""), errs.InvalidImage},
		"TooLong":   {t.Context(), strings.NewReader("12345678901"), errs.TooLarge},
		"Endless":   {t.Context(), zeros{}, errs.TooLarge},
		"BreaksOff": {t.Context(), io.MultiReader(strings.NewReader("1234"), iotest.ErrReader(io.ErrUnexpectedEOF)), errs.InvalidField},
		"Abandoned": {over, strings.NewReader("1234"), errs.InvalidField},
	} {
		u, err := d.Receive(c.ctx, c.body, 10)
		if u != nil || !errs.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := names(t, path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A name is a SHA-256 and nothing else: no path leads out of the folder.
func TestNames(t *testing.T) {
	d := open(t, t.TempDir())
	for _, bad := range []string{"", ".", "..", "../" + strings.Repeat("a", 61), strings.Repeat("a", 63), strings.Repeat("A", 64), strings.Repeat("a", 65), strings.Repeat("/", 64)} {
		if _, err := d.Open(bad); !errs.Is(err, errs.InvalidField) {
			t.Errorf("open %q: %v", bad, err)
		}
		if err := d.Remove(bad); !errs.Is(err, errs.InvalidField) {
			t.Errorf("remove %q: %v", bad, err)
		}
	}
}

// A folder is shared: a server that opens it sweeps what a dead one left, and
// leaves alone what another is writing.
func TestOpenSweepsOnlyTheDead(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	dead := filepath.Join(path, tempPrefix+"dead")
	if err := os.WriteFile(dead, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	half := make(chan struct{})
	in, out := io.Pipe()
	kept := make(chan error, 1)
	go func() {
		u, err := d.Receive(t.Context(), in, 100)
		if err == nil {
			err = u.Keep()
			u.Discard()
		}
		kept <- err
	}()
	go func() {
		_, _ = out.Write([]byte("first "))
		close(half)
	}()
	<-half
	open(t, path) // another server starts
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a dead server left stays: %v", err)
	}
	_, _ = out.Write([]byte("second"))
	_ = out.Close()
	if err := <-kept; err != nil {
		t.Fatalf("another server's start broke an upload: %v", err)
	}
	if got := names(t, path); len(got) != 1 || got[0] != sumOf("first second") {
		t.Errorf("left %v", got)
	}
}

// The same content from many at once is one file; servers that start meanwhile
// disturb nobody.
func TestManyAtOnce(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	body := bytes.Repeat([]byte("x"), 1<<16)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if i%4 == 0 {
				if _, err := Open(path); err != nil {
					t.Error(err)
				}
				return
			}
			u, err := d.Receive(t.Context(), bytes.NewReader(body), 1<<20)
			if err == nil {
				err = u.Keep()
				u.Discard()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t, path); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}
