package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Stream is one bulk connection.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite tells the other side that nothing more comes.
	CloseWrite() error
}

// Fetch writes an image file's content.
type Fetch func(ctx context.Context, to io.Writer) error

func (a *Agent) ensureImages(ctx context.Context, p Peer, _ *guest, c *nodelink.EnsureImages) (any, error) {
	for _, f := range c.Files {
		err := a.cfg.Images.Ensure(ctx, f, func(ctx context.Context, to io.Writer) error {
			s, err := p.Bulk(ctx, c.Tickets[f.SHA256])
			if err != nil {
				return err
			}
			defer s.Close()
			stop := context.AfterFunc(ctx, func() { _ = s.Close() })
			defer stop()
			_, err = io.Copy(to, s)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return nodelink.Done{}, nil
}

func (a *Agent) dropImages(_ context.Context, _ Peer, c *nodelink.DropImages) (any, error) {
	a.images.Lock()
	defer a.images.Unlock()
	used := map[string]bool{}
	for _, g := range a.all() {
		g.snapshot().images(used)
	}
	var drop, kept []string
	for _, s := range c.SHA256 {
		if used[s] {
			kept = append(kept, s)
		} else {
			drop = append(drop, s)
		}
	}
	if err := a.cfg.Images.Drop(drop); err != nil {
		return nil, err
	}
	if len(kept) > 0 {
		return nil, errs.New(errs.InUse, "VMs of this node still stand on the image").BlockedBy(kept...)
	}
	return nodelink.Done{}, nil
}

// images marks the image files that the VM stands on.
func (r record) images(used map[string]bool) {
	for _, b := range r.Bases {
		used[b.SHA256] = true
	}
	if r.Machine == nil {
		return
	}
	for _, f := range []*nodelink.ImageFile{r.Machine.Kernel, r.Machine.Initrd} {
		if f != nil {
			used[f.SHA256] = true
		}
	}
}

func (a *Agent) all() []*guest {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*guest, 0, len(a.guests))
	for _, g := range a.guests {
		out = append(out, g)
	}
	return out
}

// Cache keeps image files by content in a folder, readable for every guest's
// user and writable for none.
type Cache struct {
	dir string
	mu  sync.Mutex
	// busy serializes fetches of one file; it is closed when one ends
	busy map[string]chan struct{}
}

var _ Images = (*Cache)(nil)

// OpenCache opens a folder as cache and sweeps what a crash left half-fetched.
func OpenCache(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // guests' own users go through it to their images
		return nil, errs.New(errs.HostFailure, "the image cache cannot be made").Because(err)
	}
	half, err := filepath.Glob(filepath.Join(dir, ".fetch-*"))
	if err != nil {
		return nil, errs.New(errs.Internal, "the image cache cannot be swept").Because(err)
	}
	for _, h := range half {
		_ = os.Remove(h)
	}
	return &Cache{dir: dir, busy: map[string]chan struct{}{}}, nil
}

// Path implements Images.
func (c *Cache) Path(f nodelink.ImageFile) (string, error) {
	if !isSHA256(f.SHA256) {
		return "", errs.New(errs.InvalidField, "an image file is named by its SHA-256")
	}
	path := filepath.Join(c.dir, f.SHA256)
	if _, err := os.Stat(path); err != nil {
		return "", errs.New(errs.NotFound, "the image file %s is not on this node", f.SHA256[:12]).Because(err)
	}
	return path, nil
}

// Ensure implements Images. The content is hashed as it arrives and becomes
// visible only when it is what its name says.
func (c *Cache) Ensure(ctx context.Context, f nodelink.ImageFile, fetch Fetch) error {
	if !isSHA256(f.SHA256) {
		return errs.New(errs.InvalidField, "an image file is named by its SHA-256")
	}
	leave, err := c.enter(ctx, f.SHA256)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := c.Path(f); err == nil {
		return nil
	}
	return c.fetch(ctx, f, fetch)
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
	tmp, err := os.CreateTemp(c.dir, ".fetch-*")
	if err != nil {
		return errs.New(errs.HostFailure, "the image cache cannot be written").Because(err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	sum := sha256.New()
	w := &bounded{w: io.MultiWriter(tmp, sum), left: f.SizeBytes}
	if err := fetch(ctx, w); err != nil {
		return fetchError(err)
	}
	if w.left > 0 {
		return errs.New(errs.NodeUnreachable, "the image's transfer broke off with %d bytes missing", w.left)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return errs.New(errs.ImageMismatch, "the image arrived as %s, not as %s: the server's copy is damaged", got[:12], f.SHA256[:12])
	}
	err = errors.Join(tmp.Chmod(0o444), tmp.Sync(), tmp.Close(), os.Rename(tmp.Name(), filepath.Join(c.dir, f.SHA256)))
	if err != nil {
		return errs.New(errs.HostFailure, "the image cache cannot be written").Because(err)
	}
	return nil
}

func fetchError(err error) error {
	if _, ok := errors.AsType[*errs.Error](err); ok {
		return err
	}
	return errs.New(errs.NodeUnreachable, "the image's transfer broke off").Because(err)
}

// Drop implements Images.
func (c *Cache) Drop(sums []string) error {
	for _, s := range sums {
		if !isSHA256(s) {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.HostFailure, "the image file cannot be removed").Because(err)
		}
	}
	return nil
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// bounded refuses a body longer than promised.
type bounded struct {
	w    io.Writer
	left int64
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errs.New(errs.ImageMismatch, "the image's body is longer than promised")
	}
	n, err := b.w.Write(p)
	b.left -= int64(n)
	return n, err
}
