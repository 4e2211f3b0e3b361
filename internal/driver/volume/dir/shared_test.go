package dir_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/dir"
	"github.com/novacron/novacron/internal/driver/volume/voltest"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// readAll reads a base by QEMU's own tool.
func readAll(t *testing.T) dir.Content {
	t.Helper()
	return func(b contract.Base, put func(int64, []byte) error) error {
		out := filepath.Join(t.TempDir(), "content")
		img(t, "convert", "-f", b.File.Format, "-O", "raw", b.File.Path, out)
		all, err := os.ReadFile(out)
		if err == nil {
			err = put(0, all)
		}
		return err
	}
}

type sharedHarness struct{ *harness }

func newSharedHarness(t *testing.T) voltest.Harness {
	t.Helper()
	h := sharedHarness{&harness{path: t.TempDir(), bases: t.TempDir()}}
	h.Reopen(t)
	t.Cleanup(func() { _ = h.driver.Close() })
	return h
}

func (h sharedHarness) Reopen(t *testing.T) {
	t.Helper()
	d, err := dir.OpenShared(h.path, readAll(t))
	if err != nil {
		t.Fatal(err)
	}
	h.driver = d
}

func (h sharedHarness) Another(t *testing.T) voltest.Harness { t.Helper(); return newSharedHarness(t) }

// Intact looks at the size: a raw image is whatever it is.
func (h sharedHarness) Intact(t *testing.T, v contract.Volume) {
	t.Helper()
	info, err := os.Stat(v.File.Path)
	if err != nil || info.Size() != v.SizeBytes || v.Backing != nil || v.File.Format != "raw" {
		t.Fatalf("the image has %v, %v; the volume is %+v", info, err, v)
	}
}

func TestSharedConformance(t *testing.T) {
	voltest.Exercise(t, newSharedHarness)
}

// Two hosts have one folder: each sees what the other makes, and neither sweeps what the
// other is making.
func TestSharedByTwo(t *testing.T) {
	path := t.TempDir()
	one, err := dir.OpenShared(path, readAll(t))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	v, err := one.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: unit.MiB})
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(path, id.New().String()+".img.tmp")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := dir.OpenShared(path, readAll(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got, err := other.Inspect(t.Context(), v.ID); err != nil || got != v {
		t.Errorf("the other one sees %+v, %v", got, err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Errorf("what the first is making: %v", err)
	}
}
