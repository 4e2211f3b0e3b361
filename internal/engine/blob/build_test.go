package blob

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// A file is built where its writer likes, hashed, and visible when it is kept.
func TestBuild(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	var hashed int64
	u, err := d.Build(t.Context(), func(w io.WriterAt) error {
		_, err := w.WriteAt([]byte("tent"), 3)
		_, other := w.WriteAt([]byte("con"), 0)
		return errors.Join(err, other)
	}, func(at int64) error { hashed = at; return nil })
	if err != nil || u.SHA256 != sumOf("content") || u.Size != 7 || hashed != 7 {
		t.Fatalf("%+v %v, %d hashed", u, err, hashed)
	}
	if err := u.Keep(); err != nil {
		t.Fatal(err)
	}
	u.Discard()
	if got := names(t, path); len(got) != 1 || got[0] != sumOf("content") {
		t.Errorf("there is %v", got)
	}
}

// A build that fails, is cancelled, or whose process is gone leaves nothing, and its
// turn goes to the next.
func TestBuildEnds(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	stop := errors.New("stop")
	over, cancel := context.WithCancel(t.Context())
	for range 2 * maxBuilds {
		if _, err := d.Build(t.Context(), func(io.WriterAt) error { return stop }, nil); !errors.Is(err, stop) {
			t.Errorf("the writer failed: %v", err)
		}
	}
	if _, err := d.Build(t.Context(), one, func(int64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("hashing was stopped: %v", err)
	}
	_, err := d.Build(over, func(w io.WriterAt) error {
		cancel()
		return one(w)
	}, nil)
	if !errs.Is(err, errs.Cancelled) {
		t.Errorf("cancelled: %v", err)
	}
	for range maxBuilds {
		d.builds <- struct{}{}
	}
	if _, err := d.Build(over, one, nil); !errs.Is(err, errs.Cancelled) {
		t.Errorf("cancelled before its turn: %v", err)
	}
	for range maxBuilds {
		<-d.builds
	}
	// a process that was killed: its lock is gone, its file is not
	u, err := d.Build(t.Context(), one, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sweep()); err != nil || len(names(t, path)) != 1 {
		t.Errorf("swept what is held: %v %v", names(t, path), err)
	}
	_ = u.file.Close()
	if err := d.Sweep(); err != nil || len(names(t, path)) != 0 {
		t.Errorf("left: %v %v", names(t, path), err)
	}
}

func one(w io.WriterAt) error {
	_, err := w.WriteAt([]byte("x"), 0)
	return err
}
