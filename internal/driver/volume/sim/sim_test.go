package sim_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/driver/volume/voltest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// harness is a folder of simulated volumes.
type harness struct {
	path, bases string
	driver      *sim.Driver
	n           int
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{path: filepath.Join(t.TempDir(), "volumes"), bases: t.TempDir()}
	h.Reopen(t)
	return h
}

func (h *harness) Driver() contract.Driver { return h.driver }

func (h *harness) Reopen(t *testing.T) {
	t.Helper()
	d, err := sim.Open(h.path, unit.TiB)
	if err != nil {
		t.Fatal(err)
	}
	h.driver = d
}

// Base gives raw and qcow2 bases in turn; nobody looks into them.
func (h *harness) Base(t *testing.T, text string) contract.Base {
	t.Helper()
	h.n++
	format := []string{"raw", "qcow2"}[h.n%2]
	path := filepath.Join(h.bases, strconv.Itoa(h.n)+"."+format)
	if err := os.WriteFile(path, append([]byte(text), make([]byte, unit.MiB-int64(len(text)))...), 0o600); err != nil {
		t.Fatal(err)
	}
	return contract.Base{File: hypervisor.File{Path: path, Format: format}, VirtualSize: unit.MiB}
}

func (h *harness) Begins(t *testing.T, v contract.Volume, _ int) string {
	t.Helper()
	t.Fatalf("volume %s holds nothing", v.ID)
	return ""
}

// Intact reads what the driver left on the disk.
func (h *harness) Intact(t *testing.T, v contract.Volume) {
	t.Helper()
	b, err := os.ReadFile(v.File.Path)
	if err != nil {
		t.Fatal(err)
	}
	var is struct {
		Size int64  `json:"size_bytes"`
		Base string `json:"base_path"`
	}
	var base string
	if v.Backing != nil {
		base = v.Backing.Path
	}
	if err := json.Unmarshal(b, &is); err != nil || is.Size != v.SizeBytes || is.Base != base {
		t.Fatalf("%s holds %s, %v; the volume is %+v", v.File.Path, b, err, v)
	}
}

func (h *harness) Another(t *testing.T) voltest.Harness { t.Helper(); return newHarness(t) }

func (h *harness) Leftovers() (out []string) {
	entries, _ := os.ReadDir(h.path)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestVolumeConformance(t *testing.T) {
	voltest.Exercise(t, func(t *testing.T) voltest.Harness { return newHarness(t) })
}

// A file that was being written when its process died is no volume, and is gone when
// the folder is opened; one that cannot be read is said, and not made anew.
func TestHalfAFile(t *testing.T) {
	h := newHarness(t)
	half, broken := id.New(), id.New()
	for name, text := range map[string]string{half.String() + ".new": `{"size_by`, broken.String(): "{"} {
		if err := os.WriteFile(filepath.Join(h.path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.Reopen(t)
	if left := h.Leftovers(); len(left) != 1 || left[0] != broken.String() {
		t.Errorf("left: %v", left)
	}
	if _, err := h.driver.Inspect(t.Context(), half); !errs.Is(err, errs.NotFound) {
		t.Errorf("half a file: %v", err)
	}
	if v, err := h.driver.Create(t.Context(), contract.Spec{ID: broken, SizeBytes: unit.MiB}); !errs.Is(err, errs.HostFailure) {
		t.Errorf("a file that cannot be read: %+v %v", v, err)
	}
}

// More is lent than there is, and that never shows as less than nothing.
func TestUsageEndsAtNothing(t *testing.T) {
	h := newHarness(t)
	for range 3 {
		if _, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: unit.TiB / 2}); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := h.driver.Usage(t.Context()); err != nil || u.FreeBytes != 0 || u.TotalBytes != unit.TiB {
		t.Errorf("%+v %v", u, err)
	}
}
