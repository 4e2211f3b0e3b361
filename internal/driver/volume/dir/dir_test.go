package dir_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/dir"
	"github.com/novacron/novacron/internal/driver/volume/voltest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
	"github.com/novacron/novacron/internal/vocab/unit"
)

type harness struct {
	path, bases string
	driver      *dir.Driver
	n           int
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{path: filepath.Join(t.TempDir(), "volumes"), bases: t.TempDir()}
	h.open(t)
	t.Cleanup(func() { _ = h.driver.Close() })
	return h
}

func (h *harness) open(t *testing.T) {
	t.Helper()
	d, err := dir.Open(h.path)
	if err != nil {
		t.Fatal(err)
	}
	h.driver = d
}

func (h *harness) Driver() contract.Driver { return h.driver }

func (h *harness) Reopen(t *testing.T) {
	t.Helper()
	if err := h.driver.Close(); err != nil {
		t.Fatal(err)
	}
	h.open(t)
}

// Base gives raw and qcow2 bases in turn.
func (h *harness) Base(t *testing.T, text string) contract.Base {
	t.Helper()
	h.n++
	raw := filepath.Join(h.bases, strconv.Itoa(h.n)+".raw")
	if err := os.WriteFile(raw, append([]byte(text), make([]byte, unit.MiB-int64(len(text)))...), 0o644); err != nil {
		t.Fatal(err)
	}
	if h.n%2 == 0 {
		return contract.Base{File: hypervisor.File{Path: raw, Format: "raw"}, VirtualSize: unit.MiB}
	}
	qcow2 := strings.TrimSuffix(raw, "raw") + "qcow2"
	img(t, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	return contract.Base{File: hypervisor.File{Path: qcow2, Format: "qcow2"}, VirtualSize: unit.MiB}
}

func img(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (h *harness) Begins(t *testing.T, v contract.Volume, n int) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "head")
	img(t, "dd", "-f", v.File.Format, "-O", "raw", "bs=512", "count=1", "if="+v.File.Path, "of="+out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// Intact lets QEMU's own tool judge the image.
func (h *harness) Intact(t *testing.T, v contract.Volume) {
	t.Helper()
	img(t, "check", "-q", "-f", v.File.Format, v.File.Path)
	var info struct {
		Size    int64  `json:"virtual-size"`
		Backing string `json:"backing-filename"`
		Format  string `json:"backing-filename-format"`
	}
	if err := json.Unmarshal([]byte(img(t, "info", "--output=json", "-f", v.File.Format, v.File.Path)), &info); err != nil {
		t.Fatal(err)
	}
	want := hypervisor.File{}
	if v.Backing != nil {
		want = *v.Backing
	}
	if info.Size != v.SizeBytes || info.Backing != want.Path || info.Format != want.Format {
		t.Fatalf("the image says %+v, the volume %+v", info, v)
	}
}

func (h *harness) Another(t *testing.T) voltest.Harness { t.Helper(); return newHarness(t) }

func (h *harness) Leftovers() []string {
	entries, _ := os.ReadDir(h.path)
	var out []string
	for _, e := range entries {
		if e.Name() != "lock" {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	voltest.Exercise(t, func(t *testing.T) voltest.Harness { return newHarness(t) })
}

func TestSizesAtTheEdges(t *testing.T) {
	h := newHarness(t)
	for _, size := range []int64{512 * unit.MiB, 512*unit.MiB + 512, 64 * unit.TiB} {
		v, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: size})
		if err != nil {
			t.Fatal(err)
		}
		h.Intact(t, v)
	}
}

// An image that a guest filled and that QEMU grew is still what it was.
func TestImagesTakeData(t *testing.T) {
	h := newHarness(t)
	base := h.Base(t, "base")
	v, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: 64 * unit.MiB, Base: &base})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 32M", "-c", "read -P 7 1M 32M", v.File.Path).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
	h.Intact(t, v)
	if got := h.Begins(t, v, 4); got != "base" {
		t.Fatalf("begins with %q", got)
	}
	after, err := h.driver.Inspect(t.Context(), v.ID)
	if err != nil || after.AllocatedBytes < 32*unit.MiB {
		t.Fatalf("a volume with 32 MiB of data is %+v, %v", after, err)
	}
}

// What is sent arrives with the data a guest wrote, on a base of the other host; what a
// hostile host wrote into the header is refused, or gone.
func TestSentWithItsData(t *testing.T) {
	h, other := newHarness(t), newHarness(t)
	base, there := h.Base(t, "base"), other.Base(t, "base")
	v, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: 10 * unit.GiB, Base: &base})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 4M", "-c", "write -P 8 9G 4M", v.File.Path).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
	send := func() []byte {
		var b bytes.Buffer
		if err := h.driver.Send(t.Context(), v.ID, &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	receive := func(b []byte) (contract.Volume, error) {
		spec := contract.Spec{ID: v.ID, SizeBytes: v.SizeBytes, Base: &there}
		return other.driver.Receive(t.Context(), spec, bufio.NewReaderSize(bytes.NewReader(b), sparse.MaxPiece))
	}
	sent := send()
	if len(sent) > 12<<20 {
		t.Errorf("8 MiB of data take %d bytes", len(sent))
	}
	got, err := receive(sent)
	if err != nil {
		t.Fatal(err)
	}
	other.Intact(t, got)
	if out, err := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 1M 4M", "-c", "read -P 8 9G 4M", "-c", "read -P 0 2G 1M", got.File.Path).CombinedOutput(); err != nil || strings.Contains(string(out), "failed") {
		t.Errorf("qemu-io: %v: %s", err, out)
	}
	if begins := other.Begins(t, got, 4); begins != "base" {
		t.Errorf("begins with %q", begins)
	}
	if err := other.driver.Delete(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		at   int64
		byte byte
	}{
		"Magic": {0, 'x'}, "Version": {7, 2}, "ClusterSize": {23, 9}, "Size": {30, 1}, "Encrypted": {35, 1}, "DataFile": {79, 4}, "Packed": {79, 8}, "Unknown": {72, 128}, "Header": {103, 8},
	} {
		f, err := os.OpenFile(v.File.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var was [1]byte
		_, err1 := f.ReadAt(was[:], c.at)
		_, err2 := f.WriteAt([]byte{c.byte}, c.at)
		hostile := send()
		_, err3 := f.WriteAt(was[:], c.at)
		if err := errors.Join(err1, err2, err3, f.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := receive(hostile); !errs.Is(err, errs.InvalidImage) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if left := other.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A copy has the data a guest wrote, and takes no more room than it.
func TestCopiesHaveTheData(t *testing.T) {
	h := newHarness(t)
	base := h.Base(t, "base")
	v, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: 10 * unit.GiB, Base: &base})
	if err != nil {
		t.Fatal(err)
	}
	qemuIO := func(v contract.Volume, commands ...string) {
		t.Helper()
		args := []string{"-f", "qcow2"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		if out, err := exec.CommandContext(t.Context(), "qemu-io", append(args, v.File.Path)...).CombinedOutput(); err != nil || strings.Contains(string(out), "failed") {
			t.Fatalf("qemu-io: %v: %s", err, out)
		}
	}
	qemuIO(v, "write -P 7 1M 4M", "write -P 8 9G 4M")
	c, err := h.driver.Copy(t.Context(), id.New(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.Intact(t, c)
	qemuIO(v, "write -P 9 1M 4M")
	qemuIO(c, "read -P 7 1M 4M", "read -P 8 9G 4M", "read -P 0 5G 1M")
	if got := h.Begins(t, c, 4); got != "base" {
		t.Errorf("begins with %q", got)
	}
	if c.AllocatedBytes > 16*unit.MiB {
		t.Errorf("8 MiB of data take %d bytes in the copy", c.AllocatedBytes)
	}
}

// An image whose table of clusters ends at its size grows as far as the table's
// last cluster goes, and says so beyond.
func TestImagesOfEarlierVersionsGrow(t *testing.T) {
	h := newHarness(t)
	v, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: unit.GiB})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(v.File.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const cluster = 64 << 10
	for at, b := range map[int64][]byte{
		36:                   {0, 0, 0, 2},       // two entries of 512 MiB each
		2*cluster + 4*2:      make([]byte, 2*15), // and one cluster for them
		int64(4*cluster) - 1: {0},
	} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(4 * cluster); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	h.Intact(t, v)
	for _, size := range []int64{unit.GiB + 512, 4 * unit.TiB} {
		if v, err = h.driver.Grow(t.Context(), v.ID, size, nil); err != nil {
			t.Fatal(err)
		}
		h.Intact(t, v)
	}
	if _, err := h.driver.Grow(t.Context(), v.ID, 4*unit.TiB+512, nil); !errs.Is(err, errs.Unsupported) {
		t.Errorf("%v", err)
	}
	if got, err := h.driver.Inspect(t.Context(), v.ID); err != nil || got.SizeBytes != 4*unit.TiB {
		t.Errorf("%+v %v", got, err)
	}
}

// A guest's process may rewrite its image's header; the driver does not read it.
func TestImageIsNotBelieved(t *testing.T) {
	h := newHarness(t)
	v, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: unit.MiB})
	if err != nil {
		t.Fatal(err)
	}
	img(t, "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", v.File.Path, "4M")
	got, err := h.driver.Inspect(t.Context(), v.ID)
	if err != nil || got.Backing != nil || got.SizeBytes != unit.MiB {
		t.Fatalf("the driver was told by the image: %+v, %v", got, err)
	}
}

func TestInterruptedCallsAreSwept(t *testing.T) {
	h := newHarness(t)
	kept, err := h.driver.Create(t.Context(), contract.Spec{ID: id.New(), SizeBytes: unit.MiB})
	if err != nil {
		t.Fatal(err)
	}
	half := id.New().String()
	for _, name := range []string{half + ".qcow2.tmp", half + ".json.tmp", id.New().String() + ".qcow2"} {
		if err := os.WriteFile(filepath.Join(h.path, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.Reopen(t)
	all, err := h.driver.List(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != kept.ID {
		t.Fatalf("listed %+v, %v", all, err)
	}
	if left := h.Leftovers(); len(left) != 2 {
		t.Fatalf("after sweeping there is %v, want one volume's two files", left)
	}
}

func TestSecondDriverIsKeptOut(t *testing.T) {
	h := newHarness(t)
	if _, err := dir.Open(h.path); !errs.Is(err, errs.InUse) {
		t.Fatalf("a second driver got %v", err)
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts a small file system: run it as root")
	}
	h := newHarness(t)
	_ = h.driver.Close()
	if err := unix.Mount("none", h.path, "tmpfs", 0, "size=16k,mode=711"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = h.driver.Close()
		if err := unix.Unmount(h.path, 0); err != nil {
			t.Error(err)
		}
	}()
	h.open(t)
	var made []id.ID
	for {
		s := contract.Spec{ID: id.New(), SizeBytes: unit.GiB}
		before := h.Leftovers()
		_, err := h.driver.Create(t.Context(), s)
		if err == nil {
			made = append(made, s.ID)
			if len(made) > 8 {
				t.Fatal("a file system of 16 KiB never fills")
			}
			continue
		}
		if !errs.Is(err, errs.NoSpace) {
			t.Fatalf("a full disk gave %v, want no_space", err)
		}
		if after := h.Leftovers(); len(after) != len(before) {
			t.Fatalf("the failed create left %v", after)
		}
		break
	}
	for _, v := range made {
		if err := h.driver.Delete(t.Context(), v); err != nil {
			t.Fatalf("deleting on a full disk: %v", err)
		}
	}
}
