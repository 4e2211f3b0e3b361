package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const indexName = "index.json"

// load reads the index and looks what is really there: the files decide.
func (c *Cache) load() error {
	b, err := os.ReadFile(filepath.Join(c.dir, indexName))
	known := map[string]*cached{}
	if err == nil && json.Unmarshal(b, &known) != nil {
		c.log.Warn("the image cache's index is damaged: its files are read again")
		clear(known)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return errs.New(errs.HostFailure, "the image cache cannot be read").Because(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if !isSHA256(e.Name()) || err != nil {
			continue
		}
		if k := known[e.Name()]; k != nil {
			c.files[e.Name()] = k
			c.uses = max(c.uses, k.Use)
			continue
		}
		c.files[e.Name()] = &cached{Size: info.Size()} // never used and never read, as far as we know
	}
	return nil
}

// save writes the index; sync, so that it survives a power loss. It is called
// with c.mu held.
func (c *Cache) save(sync bool) error {
	b, err := json.Marshal(c.files)
	if err == nil {
		err = durable.Replace(filepath.Join(c.dir, indexName), b, sync)
	}
	if err != nil {
		return diskError(err)
	}
	return nil
}

// remove forgets a file; it is called with c.mu held.
func (c *Cache) remove(sum string) error {
	if err := os.Remove(filepath.Join(c.dir, sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.HostFailure, "the image file cannot be removed").Because(err)
	}
	delete(c.files, sum)
	return nil
}

// Room implements Bounded.
func (c *Cache) Room(need int64, inUse map[string]bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	evicted := false
	for {
		free, err := freeBytes(c.dir)
		if err != nil {
			return err
		}
		victim := c.victim(inUse, free < need || (c.limit > 0 && c.bytes()+c.coming > c.limit))
		if victim == "" {
			if free < need {
				return errs.New(errs.NoSpace, "the node's disk has %d bytes free, and the image has %d; what is left of its image cache is in use", free, need)
			}
			break
		}
		if err := c.remove(victim); err != nil {
			return err
		}
		c.counts.Evicted++
		evicted = true
	}
	if !evicted {
		return nil
	}
	return c.save(true)
}

// victim is the next file to evict: a damaged one, or, if there is too little
// room, the one whose last use is longest ago. None is empty. It is called with
// c.mu held.
func (c *Cache) victim(inUse map[string]bool, tight bool) string {
	oldest := ""
	for sum, e := range c.files {
		if inUse[sum] || c.busy[sum] != nil || e.kept > c.clock.Boot() {
			continue
		}
		if e.Damaged {
			return sum
		}
		if tight && (oldest == "" || e.Use < c.files[oldest].Use) {
			oldest = sum
		}
	}
	return oldest
}

// bytes is what the files take; it is called with c.mu held.
func (c *Cache) bytes() (n int64) {
	for _, e := range c.files {
		n += e.Size
	}
	return n
}

func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, errs.New(errs.HostFailure, "the node's disk does not tell how full it is").Because(err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// Checking.
const (
	// checkEvery is how often each file is read and hashed though nothing changed.
	checkEvery = 7 * 24 * time.Hour
	// A check reads so much and then rests, so that guests have their disk: 80 MB/s
	// at most.
	checkPiece = 4 << 20
	checkRest  = 50 * time.Millisecond
)

// whole tells whether a file is there and what its name says: errs.NotFound,
// errs.ImageMismatch. It is read only if it changed since it was last whole.
func (c *Cache) whole(ctx context.Context, f nodelink.ImageFile) error {
	if !isSHA256(f.SHA256) {
		return errs.New(errs.InvalidField, "an image file is named by its SHA-256")
	}
	info, err := os.Stat(filepath.Join(c.dir, f.SHA256))
	if err != nil {
		return readError(f.SHA256, err)
	}
	c.mu.Lock()
	e := c.files[f.SHA256]
	known := e != nil && e.Whole > 0 && e.Size == info.Size() && e.Modified == info.ModTime().UnixNano()
	damaged := e != nil && e.Damaged
	c.mu.Unlock()
	switch {
	case damaged:
		return damagedError(f.SHA256)
	case known:
		return nil
	}
	return c.check(ctx, f.SHA256, nil)
}

func readError(sum string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "the image file %s is not on this node", sum[:12]).Because(err)
	}
	return errs.New(errs.HostFailure, "the image file %s cannot be read", sum[:12]).Because(err)
}

func damagedError(sum string) error {
	return errs.New(errs.ImageMismatch, "the image file %s on this node is damaged: it is fetched again when a VM that needs it is started or created", sum[:12])
}

// check reads a file and notes whether it is what its name says. rest, unless
// nil, is called between pieces.
func (c *Cache) check(ctx context.Context, sum string, rest func() error) error {
	file, err := os.Open(filepath.Join(c.dir, sum))
	if err != nil {
		return readError(sum, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return readError(sum, err)
	}
	got, failed := hashFile(ctx, file, rest)
	if ctx.Err() != nil {
		return errs.New(errs.Timeout, "the image file was not read to its end").Because(ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.files[sum]
	if now, err := os.Stat(filepath.Join(c.dir, sum)); e == nil || err != nil || !os.SameFile(info, now) {
		return errs.New(errs.NotFound, "the image file %s was removed or replaced meanwhile", sum[:12])
	}
	if got != sum { // a disk that cannot read it has lost it too
		e.Damaged = true
		c.counts.Damaged++
		c.log.Error("an image file of this node's cache is damaged", "sha256", sum, "is", got, "err", failed)
		return errors.Join(damagedError(sum), c.save(true))
	}
	e.Size, e.Modified, e.Whole = info.Size(), info.ModTime().UnixNano(), c.clock.Now().Unix()
	return c.save(false)
}

func hashFile(ctx context.Context, file *os.File, rest func() error) (string, error) {
	sum := sha256.New()
	for {
		n, err := io.CopyN(sum, file, checkPiece)
		if err == nil && ctx.Err() == nil && rest != nil {
			err = rest()
		}
		switch {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(sum.Sum(nil)), nil
		case err != nil:
			return "", err
		case n == 0 || ctx.Err() != nil:
			return "", ctx.Err()
		}
	}
}

// Check implements Bounded. It reads every file that was not read for a week.
func (c *Cache) Check(ctx context.Context) error {
	rest := func() error { return c.clock.Sleep(ctx, checkRest) }
	for _, sum := range c.due() {
		err := c.check(ctx, sum, rest)
		if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.ImageMismatch) {
			return err
		}
	}
	return nil
}

// due lists the files to read.
func (c *Cache) due() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sum, e := range c.files {
		// one that was read in the future was read before the clock was put back
		age := c.clock.Now().Unix() - e.Whole
		if !e.Damaged && (age < 0 || age >= int64(checkEvery.Seconds())) {
			out = append(out, sum)
		}
	}
	return out
}

// CacheStatus is how a cache stands.
type CacheStatus struct {
	Limit, Bytes   int64
	Files, Damaged int
	Counts         CacheCounts
}

// Status tells how the cache stands.
func (c *Cache) Status() CacheStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := CacheStatus{Limit: c.limit, Bytes: c.bytes(), Files: len(c.files), Counts: c.counts}
	for _, e := range c.files {
		if e.Damaged {
			s.Damaged++
		}
	}
	return s
}
