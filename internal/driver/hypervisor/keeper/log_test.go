package keeper

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Whatever pieces are written, the files hold the newest bytes: at least one full
// segment's worth, at most two, and reading from any offset gives a suffix.
func TestLogHoldsTheNewestBytes(t *testing.T) {
	base, rounds := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		rounds++
		dir := filepath.Join(base, strconv.Itoa(rounds))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		size := rapid.Int64Range(1, 50).Draw(t, "size")
		w := newLogWriter(root, size)
		var all strings.Builder
		for _, piece := range rapid.SliceOfN(rapid.StringN(0, 30, 60), 0, 12).Draw(t, "pieces") {
			all.WriteString(piece)
			if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		w.close()
		from := rapid.Int64Range(0, int64(all.Len())).Draw(t, "from")
		got := readAll(t, root, from)
		want := all.String()[from:]
		if !strings.HasSuffix(want, got) || int64(len(got)) > 2*size || int64(len(got)) < min(int64(len(want)), size) {
			t.Fatalf("from %d of %q with segments of %d: read %q", from, all.String(), size, got)
		}
	})
}

func readAll(t *rapid.T, root *os.Root, at int64) string {
	var out strings.Builder
	buf := make([]byte, 7)
	for {
		n, next, err := readLog(root, at, buf)
		out.Write(buf[:n])
		at = next
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A log that cannot be written loses bytes, says so to nobody, and goes on under
// the right offset once it can.
func TestLogSurvivesItsDisk(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := newLogWriter(root, 1<<20)
	_, _ = w.Write([]byte("before "))
	_ = w.cur.Close() // every write fails from here
	_, _ = w.Write([]byte("lost "))
	_, _ = w.Write([]byte("after"))
	w.close()
	all, err := segments(root)
	if err != nil || len(all) != 2 || all[1].start != int64(len("before lost ")) {
		t.Fatalf("segments %+v, %v", all, err)
	}
	buf := make([]byte, 64)
	n, _, err := readLog(root, int64(len("before ")), buf)
	if err != nil || string(buf[:n]) != "after" {
		t.Fatalf("behind the gap there is %q, %v", buf[:n], err)
	}
}
