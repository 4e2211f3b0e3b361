package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// larder is a cache under test, with a clock of its own.
type larder struct {
	*Cache
	t       *testing.T
	dir     string
	clock   *clock.Fake
	limit   int64
	fetches atomic.Int64
}

func newLarder(t *testing.T, limit int64) *larder {
	l := &larder{t: t, dir: t.TempDir(), clock: clock.NewFake(), limit: limit}
	l.open()
	return l
}

// open opens the folder as a new process would.
func (l *larder) open() {
	l.t.Helper()
	var err error
	if l.Cache, err = OpenCache(l.dir, CacheOptions{Limit: l.limit, Clock: l.clock, Log: slog.New(slog.DiscardHandler)}); err != nil {
		l.t.Fatal(err)
	}
}

func fileOf(content string) nodelink.ImageFile {
	sum := sha256.Sum256([]byte(content))
	return nodelink.ImageFile{SHA256: hex.EncodeToString(sum[:]), SizeBytes: int64(len(content))}
}

// ensure brings a file into the cache as the agent does.
func (l *larder) ensure(content string, inUse ...nodelink.ImageFile) error {
	return l.Ensure(l.t.Context(), fileOf(content), func(_ context.Context, to io.Writer) error {
		l.fetches.Add(1)
		used := map[string]bool{}
		for _, f := range inUse {
			used[f.SHA256] = true
		}
		if err := l.Room(int64(len(content)), used); err != nil {
			return err
		}
		_, err := io.Copy(to, strings.NewReader(content))
		return err
	})
}

func (l *larder) must(content string, inUse ...nodelink.ImageFile) {
	l.t.Helper()
	if err := l.ensure(content, inUse...); err != nil {
		l.t.Fatal(err)
	}
	l.clock.Advance(keptFor + time.Second) // nobody counts on it any more
}

// has compares what is in the folder.
func (l *larder) has(want ...string) {
	l.t.Helper()
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	names := map[string]bool{indexName: true}
	for _, w := range want {
		names[fileOf(w).SHA256] = true
	}
	for _, e := range entries {
		if !names[e.Name()] {
			l.t.Errorf("%s should not be there", e.Name())
		}
		delete(names, e.Name())
	}
	delete(names, indexName)
	if len(names) > 0 {
		l.t.Errorf("missing: %v", names)
	}
}

func text(c string) string { return strings.Repeat(c, 100) }

// The files used longest ago go first, also after a restart; those that VMs stand
// on never go, nor does what was just asked for.
func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	a, b, c, d := text("a"), text("b"), text("c"), text("d")
	l := newLarder(t, 300)
	for _, s := range []string{a, b, c, a} {
		l.must(s)
	}
	l.has(a, b, c)
	l.open() // what was used last is remembered
	l.must(d)
	l.has(a, c, d)
	l.must(b, fileOf(c))
	l.has(b, c, d)
	if err := l.ensure(a, fileOf(b), fileOf(c), fileOf(d)); err != nil {
		t.Fatal(err)
	}
	l.has(a, b, c, d) // all in use or just asked for: the limit gives way
	if err := l.Room(0, map[string]bool{fileOf(b).SHA256: true, fileOf(c).SHA256: true, fileOf(d).SHA256: true}); err != nil {
		t.Fatal(err)
	}
	l.has(a, b, c, d)
	l.clock.Advance(keptFor + time.Second)
	if err := l.Room(0, nil); err != nil {
		t.Fatal(err)
	}
	l.has(a, b, d) // c was used longest ago
	if s := l.Status(); s.Limit != 300 || s.Bytes != 300 || s.Files != 3 || s.Counts.Evicted != 3 {
		t.Errorf("%+v", s)
	}
}

// Many that want one file at once fetch it once.
func TestCacheFetchesOnce(t *testing.T) {
	l := newLarder(t, 0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := l.ensure(text("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := l.fetches.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if s := l.Status(); s.Counts.Hits != 19 || s.Counts.Fetched != 1 {
		t.Errorf("%+v", s)
	}
}

// A flipped byte is found when the file is next used, since its time of change
// tells, or within a week if it does not; the file is refused, and fetched again.
func TestCacheFindsDamage(t *testing.T) {
	for name, c := range map[string]struct{ silent, back bool }{
		"OnUse": {}, "InTheBackground": {silent: true}, "InTheBackgroundByAClockPutBack": {silent: true, back: true},
	} {
		silent, back := c.silent, c.back
		t.Run(name, func(t *testing.T) {
			l := newLarder(t, 0)
			l.must(text("x"))
			f := fileOf(text("x"))
			path := filepath.Join(l.dir, f.SHA256)
			if got, err := l.Path(f); err != nil || got != path {
				t.Fatalf("%s %v", got, err)
			}
			old, err := os.Open(path) // as a guest's process has it
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			flip(t, path, silent)
			if silent {
				if _, err := l.Path(f); err != nil {
					t.Errorf("nothing shows it yet: %v", err)
				}
				l.check()
				if l.Status().Damaged != 0 {
					t.Error("read again although it was read within the week")
				}
				if back { // as if it had been read in the future
					l.clock.StepWall(-365 * 24 * time.Hour)
				} else {
					l.clock.Advance(checkEvery)
				}
				l.check()
			}
			if _, err := l.Path(f); !errs.Is(err, errs.ImageMismatch) {
				t.Fatalf("served: %v", err)
			}
			l.open()
			if _, err := l.Path(f); !errs.Is(err, errs.ImageMismatch) || l.Status().Damaged != 1 {
				t.Fatalf("served after a restart: %v", err)
			}
			l.must(text("x"))
			if _, err := l.Path(f); err != nil || l.fetches.Load() != 2 || l.Status().Damaged != 0 {
				t.Errorf("fetched %d times: %v", l.fetches.Load(), err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != text("x") {
				t.Errorf("%q %v", b, err)
			}
			if b, err := io.ReadAll(old); err != nil || len(b) != 100 || string(b) == text("x") {
				t.Errorf("whoever has the damaged file open lost it: %v", err)
			}
		})
	}
}

// check runs the background's reading, without its rests.
func (l *larder) check() {
	l.t.Helper()
	done := make(chan error, 1)
	go func() { done <- l.Check(l.t.Context()) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				l.t.Fatal(err)
			}
			return
		default:
			l.clock.Advance(time.Millisecond)
		}
	}
}

// flip changes a byte; silently, as a disk does that forgets.
func flip(t *testing.T, path string, silent bool) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[50] ^= 1
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		if err = os.Chmod(path, 0o600); err == nil {
			w, err = os.OpenFile(path, os.O_WRONLY, 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	at := info.ModTime().Add(time.Second)
	if silent {
		at = info.ModTime()
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// A damaged file that no VM stands on is removed; one that VMs stand on stays
// until it is fetched again.
func TestCacheRemovesDamage(t *testing.T) {
	l := newLarder(t, 0)
	l.must(text("x"))
	f := fileOf(text("x"))
	flip(t, filepath.Join(l.dir, f.SHA256), false)
	if _, err := l.Path(f); !errs.Is(err, errs.ImageMismatch) {
		t.Fatal(err)
	}
	if err := l.Room(0, map[string]bool{f.SHA256: true}); err != nil {
		t.Fatal(err)
	}
	l.has(text("x"))
	if err := l.Room(0, nil); err != nil {
		t.Fatal(err)
	}
	l.has()
}

// A lost or damaged index, and files of an earlier version, cost a reading and
// nothing else.
func TestCacheWithoutItsIndex(t *testing.T) {
	for name, index := range map[string]string{"Lost": "", "Damaged": "{", "Empty": "{}"} {
		t.Run(name, func(t *testing.T) {
			l := newLarder(t, 0)
			l.must(text("x"))
			path := filepath.Join(l.dir, indexName)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if index != "" {
				if err := os.WriteFile(path, []byte(index), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l.open()
			l.must(text("x"))
			if l.fetches.Load() != 1 || l.Status().Bytes != 100 {
				t.Errorf("fetched %d times, %+v", l.fetches.Load(), l.Status())
			}
		})
	}
}

// A transfer that breaks off, lies or finds no room leaves nothing, and says
// whose fault it was.
func TestCacheFetchFails(t *testing.T) {
	l := newLarder(t, 0)
	f := fileOf(text("x"))
	for name, c := range map[string]struct {
		body string
		err  error
		want errs.Code
	}{
		"BreaksOff": {text("x")[:50], io.ErrUnexpectedEOF, errs.NodeUnreachable},
		"TooShort":  {text("x")[:50], nil, errs.NodeUnreachable},
		"TooLong":   {text("x") + "x", nil, errs.ImageMismatch},
		"Lies":      {text("y"), nil, errs.ImageMismatch},
	} {
		err := l.Ensure(t.Context(), f, func(_ context.Context, to io.Writer) error {
			if _, err := io.Copy(to, strings.NewReader(c.body)); err != nil {
				return err
			}
			return c.err
		})
		if !errs.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		l.has()
	}
}

// On a full disk what nobody uses makes room; without any, the fetch is refused
// before it begins, or in the middle when another took the room, and leaves
// nothing.
func TestCacheOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts a small file system: run it as root")
	}
	l := newLarder(t, 0)
	if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=1m,mode=711"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(l.dir, 0); err != nil {
			t.Error(err)
		}
	}()
	l.open()
	half := func(c string) string { return strings.Repeat(c, int(600*unit.KiB)) }
	l.must(half("a"))
	l.must(half("b")) // a goes, though there is no limit
	l.has(half("b"))
	if err := l.ensure(half("c"), fileOf(half("b"))); !errs.Is(err, errs.NoSpace) {
		t.Errorf("no room: %v", err)
	}
	l.has(half("b"))
	err := l.Ensure(t.Context(), fileOf(half("c")), func(_ context.Context, to io.Writer) error {
		_, err := io.Copy(to, bytes.NewReader([]byte(half("c")))) // without asking for room
		return err
	})
	if !errs.Is(err, errs.NoSpace) {
		t.Errorf("the disk fills up meanwhile: %v", err)
	}
	l.has(half("b"))
}

// What is dropped is gone, and a name is a SHA-256 and nothing else.
func TestCacheDrops(t *testing.T) {
	l := newLarder(t, 0)
	l.must(text("x"))
	for range 2 {
		if err := l.Drop([]string{fileOf(text("x")).SHA256, "../" + indexName}); err != nil {
			t.Fatal(err)
		}
	}
	l.has()
	if _, err := l.Path(fileOf(text("x"))); !errs.Is(err, errs.NotFound) {
		t.Errorf("dropped: %v", err)
	}
	bad := nodelink.ImageFile{SHA256: "../" + strings.Repeat("a", 61)}
	if _, err := l.Path(bad); !errs.Is(err, errs.InvalidField) {
		t.Errorf("a path as a name: %v", err)
	}
	if err := l.Ensure(t.Context(), bad, nil); !errs.Is(err, errs.InvalidField) {
		t.Errorf("a path as a name: %v", err)
	}
}

// A place that breaks off, lies or is gone is passed over, and nothing of what it
// sent is kept; with no place left, the last one's failure is told.
func TestCacheGoesToTheNextPlace(t *testing.T) {
	l := newLarder(t, 0)
	f := fileOf(text("x"))
	sends := func(body string, err error) Fetch {
		return func(_ context.Context, to io.Writer) error {
			if _, wrong := io.Copy(to, strings.NewReader(body)); wrong != nil {
				return wrong
			}
			return err
		}
	}
	gone := errs.New(errs.NodeUnreachable, "gone")
	if err := l.Ensure(t.Context(), f, sends("", gone), sends(text("y"), nil)); !errs.Is(err, errs.ImageMismatch) {
		t.Errorf("no place has it: %v", err)
	}
	l.has()
	if err := l.Ensure(t.Context(), f); !errs.Is(err, errs.NotFound) {
		t.Errorf("nowhere to fetch it from: %v", err)
	}
	err := l.Ensure(t.Context(), f, sends("", gone), sends(text("x")[:50], nil), sends(text("y"), nil), sends(text("x"), nil))
	if err != nil {
		t.Fatal(err)
	}
	l.has(text("x"))
}
