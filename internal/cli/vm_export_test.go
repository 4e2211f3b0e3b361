package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	diskformat "github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/domain/image/ova"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// exporting is a stopped machine with a disk, whose capture has a content.
func exporting(t *testing.T, b *bench, but map[string]said) (content []byte) {
	t.Helper()
	var f growing
	w := diskformat.NewWriter(&f, 1<<20)
	if err := w.Tell(65536, bytes.Repeat([]byte("content "), 8192)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(f.b)
	v := api.VM{Meta: api.Meta{ID: "v1", Name: "web"}, Spec: api.VMSpec{CPUs: 2, MemoryBytes: 64 << 20, Image: "boot", Disks: []api.VMDisk{{Slot: 0, SizeBytes: 1 << 20}}, NICs: []api.VMNIC{{}}}}
	v.Status.Since = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	img := half("disk", "ready")
	img.Status.Files = []api.ImageFile{{Role: "disk", SHA256: hex.EncodeToString(sum[:]), SizeBytes: api.Bytes(len(f.b)), Format: "qcow2"}}
	answers := map[string]said{
		"GET /vms/web":             {200, v},
		"GET /images/boot":         {200, half("disk", "ready")},
		"GET /images/web-export-0": {404, api.Error{Status: 404, Code: "not_found"}},
		"POST /images":             {201, half("disk", "uploading")},
		"POST /images/i1/capture":  {202, api.Accepted{Job: someJob("queued")}},
		"GET /jobs/j1":             {200, someJob("succeeded")},
		"GET /images/i1":           {200, img},
		"DELETE /images/i1":        {202, api.Accepted{Job: someJob("queued")}},
	}
	maps.Copy(answers, but)
	for route, is := range answers {
		b.on(route, is.status, is.doc)
	}
	b.mux.HandleFunc("GET /api/v1/images/i1/files/disk", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.b))
	})
	want := make([]byte, 1<<20)
	copy(want[65536:], bytes.Repeat([]byte("content "), 8192))
	return want
}

// growing is a file in memory.
type growing struct{ b []byte }

// WriteAt implements io.WriterAt.
func (g *growing) WriteAt(p []byte, at int64) (int, error) {
	if need := int(at) + len(p); need > len(g.b) {
		g.b = append(g.b, make([]byte, need-len(g.b))...)
	}
	return copy(g.b[at:], p), nil
}

func lastAsked(b *bench) string {
	all := b.requests()
	return all[len(all)-1]
}

func TestVMExportDisks(t *testing.T) {
	b, dir := newBench(t), t.TempDir()
	want := exporting(t, b, nil)
	b.args(t, 0, "vm", "export", "web", "--raw", dir)
	got, err := os.ReadFile(filepath.Join(dir, "web-disk-0.raw"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes %v", len(got), err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("left: %v %v", all, err)
	}
	if got := lastAsked(b); got != "DELETE /api/v1/images/i1" {
		t.Errorf("asked last: %s", got)
	}
	b.args(t, 0, "vm", "export", "web", "--qcow2", dir)
	if _, err := os.Stat(filepath.Join(dir, "web-disk-0.qcow2")); err != nil {
		t.Error(err)
	}
}

// What is written as an appliance is one that is taken.
func TestVMExportAppliance(t *testing.T) {
	b, path := newBench(t), filepath.Join(t.TempDir(), "web.ova")
	exporting(t, b, nil)
	b.args(t, 0, "vm", "export", "web", "--ova", path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := ova.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	m, err := archive.Machine()
	if err != nil || m.Name != "web" || m.CPUs != 2 || m.MemoryBytes != 64<<20 || m.NICs != 1 || len(m.Disks) != 1 || m.Disks[0].Bytes != 1<<20 {
		t.Fatalf("%+v %v", m, err)
	}
	e, _ := archive.Entry(m.Disks[0].File)
	if err := archive.Verify(e, nil); err != nil {
		t.Error(err)
	}
	if d, err := diskformat.Open(archive.Content(e), e.Size, diskformat.VMDK); err != nil || d.Bytes != 1<<20 {
		t.Errorf("%+v %v", d, err)
	}
}

// A refusal leaves no image behind; an image of an earlier export is gone on with
// only while the machine has been at rest since.
func TestVMExportRefused(t *testing.T) {
	b, dir := newBench(t), t.TempDir()
	exporting(t, b, map[string]said{"POST /images/i1/capture": {409, api.Error{Status: 409, Code: "invalid_state", Detail: "it is running; stop it first"}}})
	if says := b.args(t, 4, "vm", "export", "web", "--raw", dir); !strings.Contains(says, "stop it first") || strings.Contains(says, "is left") || lastAsked(b) != "DELETE /api/v1/images/i1" {
		t.Errorf("says %s, asked last: %s", says, lastAsked(b))
	}
	b = newBench(t)
	exporting(t, b, map[string]said{"GET /images/boot": {200, half("kernel", "ready")}})
	if says := b.args(t, 2, "vm", "export", "web", "--ova", filepath.Join(dir, "x")); !strings.Contains(says, "kernel") {
		t.Errorf("says %s", says)
	}
	n := len(b.requests())
	for _, args := range [][]string{{}, {"--raw", dir, "--qcow2", dir}, {"--ova", "x", "--raw", dir}} {
		b.args(t, 2, append([]string{"vm", "export", "web"}, args...)...)
	}
	if len(b.requests()) != n {
		t.Errorf("asked %v", b.requests()[n:])
	}
	for created, again := range map[int]bool{2025: true, 2027: false} {
		b := newBench(t)
		old := half("disk", "ready")
		old.CreatedAt = time.Date(created, 1, 1, 0, 0, 0, 0, time.UTC)
		exporting(t, b, map[string]said{"GET /images/web-export-0": {200, old}})
		b.args(t, 0, "vm", "export", "web", "--qcow2", t.TempDir())
		if got := strings.Contains(strings.Join(b.requests(), "\n"), "capture"); got != again {
			t.Errorf("with an image of %d, captured again: %v", created, got)
		}
	}
}

// What an export leaves on the server when it ends before it is done is said, with what
// to do about it: where the server is gone, where this machine's disk is full, and where
// it was interrupted while the disk was read.
func TestVMExportSaysWhatItLeaves(t *testing.T) {
	const left = "is left on the server"
	b := newBench(t)
	exporting(t, b, nil)
	if says := b.args(t, exitHost, "vm", "export", "web", "--qcow2", "/dev/null/x"); strings.Contains(says, left) {
		t.Errorf("before anything was made: %s", says)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "web-disk-0.qcow2", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	says := b.args(t, exitInput, "vm", "export", "web", "--qcow2", dir)
	if !strings.Contains(says, left) || !strings.Contains(says, "'novacron image delete "+half("disk", "ready").Name+"'") {
		t.Errorf("a file that cannot be written: %s", says)
	}
	b = newBench(t)
	exporting(t, b, map[string]said{"GET /jobs/j1": {200, someJob("running")}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for !strings.Contains(strings.Join(b.requests(), "\n"), "/jobs/j1") && t.Context().Err() == nil {
			_ = clock.System{}.Sleep(ctx, time.Millisecond)
		}
	}()
	if code := b.run(ctx, []string{"vm", "export", "web", "--qcow2", t.TempDir()}); code != exitInterrupted || !strings.Contains(b.stderr.String(), left) {
		t.Errorf("interrupted: %d %s", code, b.stderr.String())
	}
}

func TestImageCapture(t *testing.T) {
	b := newBench(t)
	exporting(t, b, nil)
	b.args(t, 0, "image", "capture", "golden", "--vm", "web", "--disk", "1")
	got := b.requests()
	expect(t, got[0], `POST /api/v1/images {"name":"golden","type":"disk"}`)
	expect(t, got[1], `POST /api/v1/images/i1/capture {"vm":"web","disk":"1"}`)
	b.args(t, 2, "image", "capture", "golden")
	b = newBench(t)
	exporting(t, b, map[string]said{"POST /images/i1/capture": {409, api.Error{Status: 409, Code: "invalid_state"}}})
	b.args(t, 4, "image", "capture", "golden", "--vm", "web")
	if lastAsked(b) != "DELETE /api/v1/images/i1" {
		t.Errorf("asked last: %s", lastAsked(b))
	}
}
