package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// What an image is made of follows from the files that are named.
func TestImportKinds(t *testing.T) {
	for want, f := range map[string]importFlags{
		"disk [{disk a}]":                {disk: "a"},
		"iso [{iso a}]":                  {iso: "a"},
		"kernel [{kernel a} {initrd b}]": {kernel: "a", initrd: "b", cmdline: "c"},
	} {
		kind, parts, err := f.plan(&cobra.Command{})
		if got := fmt.Sprint(kind, " ", parts); got != want || err != nil {
			t.Errorf("%+v: %s, %v", f, got, err)
		}
	}
	for _, f := range []importFlags{{}, {kernel: "a"}, {initrd: "a"}, {disk: "a", iso: "b"}, {iso: "a", cmdline: "b"}, {disk: "a", kernel: "b", initrd: "c"}, {cmdline: "a"}} {
		if kind, parts, err := f.plan(&cobra.Command{}); err == nil {
			t.Errorf("%+v: %s %v", f, kind, parts)
		}
	}
}

// The figures of a transfer: what came in the last seconds counts, and what was
// sent before a break is no speed.
func TestTransfer(t *testing.T) {
	clk := clock.NewFake()
	m := newTransfer(clk, 100<<20)
	if m.at(40 << 20); m.line() != "40 MiB of 100 MiB" {
		t.Errorf("gone on with: %s", m.line())
	}
	for _, c := range []struct {
		after time.Duration
		sent  int64
		drawn bool
		want  string
	}{
		{100 * time.Millisecond, 41 << 20, false, "41 MiB of 100 MiB"},
		{900 * time.Millisecond, 50 << 20, true, "50 MiB of 100 MiB, 10 MiB/s, 5s left"},
		{2 * time.Second, 90 << 20, true, "90 MiB of 100 MiB, 20 MiB/s, 1s left"},
		{time.Second, 60 << 20, true, "60 MiB of 100 MiB"}, // broken off
		{50 * time.Millisecond, 100 << 20, true, "100 MiB of 100 MiB"},
	} {
		clk.Advance(c.after)
		if drawn := m.at(c.sent); drawn != c.drawn || m.line() != c.want {
			t.Errorf("drawn %v: %s, want %v: %s", drawn, m.line(), c.drawn, c.want)
		}
	}
}

// said is a server's answer.
type said struct {
	status int
	doc    any
}

// importing imports an image of one file from a server that answers as one
// without that file does, but for what is told otherwise. It gives what the
// command says and what it asked last.
func importing(t *testing.T, code int, but map[string]said, flags ...string) (says, last string) {
	t.Helper()
	b, file := newBench(t), filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	img := half("disk", "uploading")
	answers := map[string]said{
		"POST /images":                {201, img},
		"GET /images/x":               {200, img},
		"GET /images/i1":              {200, img},
		"GET /images/i1/uploads":      {200, api.List[api.ImageUpload]{}},
		"POST /images/i1/uploads":     {201, api.ImageUpload{ID: "u1", File: "disk", SizeBytes: 5}},
		"PATCH /images/i1/uploads/u1": {200, api.ImageUpload{ID: "u1", OffsetBytes: 5, Complete: true}},
		"DELETE /images/i1":           {202, api.Accepted{Job: someJob("queued")}},
	}
	maps.Copy(answers, but)
	for route, a := range answers {
		b.on(route, a.status, a.doc)
	}
	says = b.args(t, code, append([]string{"image", "import", "x", "--disk", file}, flags...)...)
	return says, b.requests()[len(b.requests())-1]
}

func half(kind, state string) api.Image {
	return api.Image{Meta: api.Meta{ID: "i1", Name: "x"}, Spec: api.ImageSpec{Type: kind}, Status: api.ImageStatus{State: state}}
}

// An image this command made is removed again when its file is refused, and kept
// when it can be gone on with.
func TestImportLeavesTheHalf(t *testing.T) {
	const part = "PATCH /images/i1/uploads/u1"
	_, last := importing(t, 2, map[string]said{part: {422, api.Error{Code: "invalid_image", Detail: "no image"}}})
	if last != "DELETE /api/v1/images/i1" {
		t.Errorf("asked last: %s", last)
	}
	says, last := importing(t, 8, map[string]said{part: {507, api.Error{Code: "no_space", Detail: "full", Retryable: true}}})
	if !strings.Contains(says, "the same command goes on with it") || strings.HasPrefix(last, "DELETE") {
		t.Errorf("says %s, asked last: %s", says, last)
	}
}

// An alias is looked at before anything is sent, and set once the image is ready.
func TestImportSetsAliases(t *testing.T) {
	b, file := newBench(t), filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := half("disk", "ready")
	taken.Name = "taken"
	b.on("GET /images/taken", 200, taken)
	b.args(t, 4, "image", "import", "x", "--disk", file, "--alias", "taken")
	b.args(t, 2, "image", "import", "x", "--disk", file, "--alias", "a b")
	if got := b.requests(); len(got) != 1 {
		t.Errorf("asked %v", got)
	}
	_, last := importing(t, 0, map[string]said{
		"GET /images/stable":            {404, api.Error{Code: "not_found"}},
		"PUT /images/i1/aliases/stable": {200, half("disk", "ready")},
	}, "--alias", "stable")
	if last != "PUT /api/v1/images/i1/aliases/stable" {
		t.Errorf("asked last: %s", last)
	}
}

// The same command goes on with an image that waits for its files, and with no
// other.
func TestImportGoesOnWithItsOwn(t *testing.T) {
	taken := said{409, api.Error{Code: "already_exists", Detail: "taken"}}
	says, _ := importing(t, 0, map[string]said{"POST /images": taken})
	if !strings.Contains(says, "going on with it") {
		t.Errorf("says %s", says)
	}
	for _, other := range []api.Image{half("disk", "ready"), half("kernel", "uploading")} {
		importing(t, 4, map[string]said{"POST /images": taken, "GET /images/x": {200, other}})
	}
}

// A disk in another program's format is waited for until it is converted; one that
// cannot be is removed again.
func TestImportWaitsForTheConversion(t *testing.T) {
	converting := half("disk", "uploading")
	converting.Status.Job = "j1"
	done, failed := someJob("succeeded"), someJob("failed")
	failed.Error = &api.JobError{Code: "invalid_image", Detail: "its table is damaged"}
	says, last := importing(t, 0, map[string]said{"GET /images/i1": {200, converting}, "GET /jobs/j1": {200, done}})
	if last != "GET /api/v1/images/i1" || !strings.Contains(says, "image x") {
		t.Errorf("says %s, asked last: %s", says, last)
	}
	says, last = importing(t, 7, map[string]said{"GET /images/i1": {200, converting}, "GET /jobs/j1": {200, failed}})
	if last != "DELETE /api/v1/images/i1" || !strings.Contains(says, "its table is damaged") {
		t.Errorf("says %s, asked last: %s", says, last)
	}
}

// A URL is read by the server: the command begins the job and waits for it.
func TestImportFromURL(t *testing.T) {
	b := newBench(t)
	img := half("disk", "uploading")
	b.on("POST /images", 201, img)
	b.on("POST /images/i1/fetch", 202, api.Accepted{Job: someJob("queued")})
	b.on("GET /jobs/j1", 200, someJob("succeeded"))
	b.on("GET /images/i1", 200, half("disk", "ready"))
	b.args(t, 0, "image", "import", "x", "--url", "https://example.org/disk.qcow2", "--sha256", strings.Repeat("ab", 32))
	if got := b.requests(); !strings.HasPrefix(got[1], "POST /api/v1/images/i1/fetch ") {
		t.Errorf("asked %v", got)
	}
	for _, args := range [][]string{
		{"--url", "disk.qcow2"},
		{"--url", "https://example.org/a", "--disk", "b"},
		{"--disk", os.Args[0], "--sha256", "ab"},
		{"--kernel", "https://example.org/a", "--initrd", "https://example.org/b", "--sha256", "ab"},
	} {
		b.args(t, 2, append([]string{"image", "import", "x"}, args...)...)
	}
}
