package durable_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/vocab/clock"
)

func open(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestWriteReplacesWhole(t *testing.T) {
	root := open(t)
	for _, want := range []string{"a long first record", "short"} {
		if err := durable.WriteJSON(root, "r.json", want); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := durable.ReadJSON(root, "r.json", &got); err != nil || got != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	if err := durable.ReadJSON(root, "missing", new(string)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing record gave %v", err)
	}
}

func TestFailedWriteLeavesTheOldRecordAlone(t *testing.T) {
	root := open(t)
	if err := root.MkdirAll("r.json/full", 0o700); err != nil { // a folder that cannot be renamed over
		t.Fatal(err)
	}
	if err := durable.WriteJSON(root, "r.json", 1); err == nil {
		t.Fatal("wrote over a folder")
	}
	if _, err := root.Stat("r.json" + durable.Suffix); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the failed write left its temporary file: %v", err)
	}
}

func TestNamesStayInside(t *testing.T) {
	if err := durable.WriteJSON(open(t), "../r.json", 1); err == nil {
		t.Fatal("wrote outside of the root")
	}
}

func TestSweepRemovesOnlyTemporaries(t *testing.T) {
	root := open(t)
	for _, name := range []string{"keep.json", "half.json" + durable.Suffix} {
		if err := root.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Sweep(root); err != nil {
		t.Fatal(err)
	}
	left, err := fs.ReadDir(root.FS(), ".")
	if err != nil || len(left) != 1 || left[0].Name() != "keep.json" {
		t.Fatalf("left %v, %v", left, err)
	}
}

// A lock is had by one; it is waited for while a killed process's child may still
// hold it, and free with its file.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	c := clock.NewFake()
	first, err := durable.Lock(path, c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	second := make(chan error, 1)
	try := func() {
		f, err := durable.Lock(path, c)
		if err == nil {
			err = f.Close()
		}
		second <- err
	}
	go try()
	for range 10 { // until its patience is over
		if err := c.Waiters(ctx, 1); err != nil {
			t.Fatal(err)
		}
		c.Advance(100 * time.Millisecond)
	}
	if err := <-second; !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	go try()
	if err := c.Waiters(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	c.Advance(100 * time.Millisecond)
	if err := <-second; err != nil {
		t.Errorf("after the first is gone: %v", err)
	}
}

// A replaced file is its owner's alone, and a failure leaves the old one and
// nothing beside it.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, sync := range []bool{true, false} {
		if err := durable.Replace(path, []byte("x"), sync); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	taken := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(taken, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(taken, []byte("x"), true); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
