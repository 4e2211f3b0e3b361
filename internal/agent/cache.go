package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// CacheOptions say how a cache is kept.
type CacheOptions struct {
	// Limit is how many bytes are kept for later. What VMs stand on is kept whatever
	// the limit. None when 0.
	Limit int64
	Clock clock.Clock
	Log   *slog.Logger
}

// Cache keeps image files by content in a folder, readable for every guest's
// user and writable for none. Its index remembers, over restarts, which files
// were used last and when each was last read and found whole; a lost index costs
// a reading of the files.
//
// A file is trusted while its size and time of change are those it had when it
// was last found whole. Otherwise, and once a week, it is read and hashed. One
// that is damaged is refused and fetched again: the new file takes the old one's
// name, and processes that have the old one open keep it until they end.
type Cache struct {
	dir   string
	limit int64
	clock clock.Clock
	log   *slog.Logger

	mu sync.Mutex
	// busy serializes fetches of one file; it is closed when one ends
	busy  map[string]chan struct{}
	files map[string]*cached
	// uses numbers uses: no wall clock decides who was first
	uses int64
	// coming is how many bytes are being fetched
	coming int64
	counts CacheCounts
}

var _ Bounded = (*Cache)(nil)

// CacheCounts is what a cache did since it was opened.
type CacheCounts struct{ Hits, Fetched, Evicted, Damaged int64 }

// cached is what the cache knows of a file.
type cached struct {
	Size int64 `json:"size"`
	// Use is the number of its last use.
	Use int64 `json:"use"`
	// Modified is its time of change when it was last whole, in ns; Whole is when it
	// was last read, in seconds since 1970: 0 for never.
	Modified int64 `json:"modified"`
	Whole    int64 `json:"whole"`
	Damaged  bool  `json:"damaged,omitempty"`

	// kept until this boot time for whoever had it fetched and has no record yet
	kept time.Duration
}

// keptFor is how long a file that was just asked for is not evicted: the VM it
// was fetched for takes it up in its next step.
const keptFor = 10 * time.Minute

// OpenCache opens a folder as cache and sweeps what a crash left half-fetched.
func OpenCache(dir string, o CacheOptions) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // guests' own users go through it to their images
		return nil, errs.New(errs.HostFailure, "the image cache cannot be made").Because(err)
	}
	for _, pattern := range []string{".fetch-*", ".tmp-*"} {
		half, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, errs.New(errs.Internal, "the image cache cannot be swept").Because(err)
		}
		for _, h := range half {
			_ = os.Remove(h)
		}
	}
	c := &Cache{dir: dir, limit: o.Limit, clock: o.Clock, log: o.Log, busy: map[string]chan struct{}{}, files: map[string]*cached{}}
	return c, c.load()
}

// Path implements Images.
func (c *Cache) Path(f nodelink.ImageFile) (string, error) {
	return filepath.Join(c.dir, f.SHA256), c.whole(context.Background(), f)
}

// Ensure implements Images. The content is hashed as it arrives and becomes
// visible only when it is what its name says.
func (c *Cache) Ensure(ctx context.Context, f nodelink.ImageFile, from ...Fetch) error {
	if !isSHA256(f.SHA256) {
		return errs.New(errs.InvalidField, "an image file is named by its SHA-256")
	}
	leave, err := c.enter(ctx, f.SHA256)
	if err != nil {
		return err
	}
	defer leave()
	err = c.whole(ctx, f)
	switch {
	case err == nil:
		return c.use(f.SHA256)
	case !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.ImageMismatch):
		return err
	}
	return c.fetchFrom(ctx, f, from, err)
}

// fetchFrom goes from place to place; missing is why there is something to fetch.
func (c *Cache) fetchFrom(ctx context.Context, f nodelink.ImageFile, from []Fetch, missing error) error {
	err := missing
	for i, fetch := range from {
		if i > 0 {
			c.log.Warn("an image file did not come from one place; trying the next", "sha256", f.SHA256, "err", err)
		}
		err = c.fetch(ctx, f, fetch)
		if err == nil || ctx.Err() != nil || errs.Is(err, errs.NoSpace) {
			return err
		}
	}
	return err
}

// enter waits until nobody else fetches the file, or ctx ends.
func (c *Cache) enter(ctx context.Context, sum string) (leave func(), err error) {
	for {
		c.mu.Lock()
		other := c.busy[sum]
		if other == nil {
			mine := make(chan struct{})
			c.busy[sum] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.busy, sum)
				c.mu.Unlock()
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, errs.New(errs.Timeout, "the image is still being fetched for another VM").Because(ctx.Err())
		}
	}
}

func (c *Cache) fetch(ctx context.Context, f nodelink.ImageFile, fetch Fetch) error {
	c.come(f.SizeBytes)
	defer c.come(-f.SizeBytes)
	tmp, err := os.CreateTemp(c.dir, ".fetch-*")
	if err != nil {
		return diskError(err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	sum := sha256.New()
	w := &bounded{w: io.MultiWriter(tmp, sum), left: f.SizeBytes}
	if err := fetch(ctx, w); err != nil {
		return fetchError(err, w.failed)
	}
	if w.left > 0 {
		return errs.New(errs.NodeUnreachable, "the image's transfer broke off with %d bytes missing", w.left)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return errs.New(errs.ImageMismatch, "the image arrived as %s, not as %s: the server's copy is damaged", got[:12], f.SHA256[:12])
	}
	if err := errors.Join(tmp.Chmod(0o444), tmp.Sync(), tmp.Close()); err != nil {
		return diskError(err)
	}
	return c.keep(tmp.Name(), f)
}

func (c *Cache) come(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coming += n
}

// keep makes a fetched file visible.
func (c *Cache) keep(tmp string, f nodelink.ImageFile) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(tmp)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(c.dir, f.SHA256))
	}
	if err != nil {
		return diskError(err)
	}
	c.uses++
	c.counts.Fetched++
	c.files[f.SHA256] = &cached{
		Size: f.SizeBytes, Use: c.uses, Modified: info.ModTime().UnixNano(), Whole: c.clock.Now().Unix(), kept: c.clock.Boot() + keptFor,
	}
	return c.save(true)
}

// use notes that a file was asked for.
func (c *Cache) use(sum string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.files[sum]
	if e == nil {
		return errs.New(errs.NotFound, "the image file %s was removed meanwhile", sum[:12])
	}
	c.uses++
	c.counts.Hits++
	e.Use, e.kept = c.uses, c.clock.Boot()+keptFor
	return c.save(false)
}

// Drop implements Images.
func (c *Cache) Drop(sums []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range sums {
		if !isSHA256(s) {
			continue
		}
		if err := c.remove(s); err != nil {
			return err
		}
	}
	return c.save(true)
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// full tells whether a disk refused to take more.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func diskError(err error) error {
	if full(err) {
		return errs.New(errs.NoSpace, "the node's disk is full: nothing of the image was kept").Because(err)
	}
	return errs.New(errs.HostFailure, "the image cache cannot be written").Because(err)
}

// fetchError words why a file did not come; disk is what the disk said, if it was
// the disk.
func fetchError(err, disk error) error {
	if disk != nil {
		return diskError(disk)
	}
	if _, ok := errors.AsType[*errs.Error](err); ok {
		return err
	}
	return errs.New(errs.NodeUnreachable, "the image's transfer broke off").Because(err)
}

// bounded refuses a body longer than promised, and remembers that it was the disk
// that failed.
type bounded struct {
	w      io.Writer
	left   int64
	failed error
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errs.New(errs.ImageMismatch, "the image's body is longer than promised")
	}
	n, err := b.w.Write(p)
	b.left -= int64(n)
	b.failed = err
	return n, err
}
