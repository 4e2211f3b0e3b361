package pool

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	markerName = "novacron-pool.json"
	volumesDir = "volumes"
	claimsDir  = "claims"
	// Format of what is in a pool's folder.
	Format = 1
)

// Options say which folder is a pool, and of whom.
type Options struct {
	// Name that its node has for it, and the absolute Path of the folder.
	Name, Path string
	// Remember is a file of the node's own in which it keeps which pool this is.
	Remember string
	// Node and Boot name who takes claims.
	Node id.ID
	Boot string
	// Open opens the driver of the volumes in a folder of the pool.
	Open  func(folder string) (contract.Driver, error)
	Clock clock.Clock
}

// Pool is a folder that several nodes have. It is safe for concurrent use.
type Pool struct {
	o Options

	mu   sync.Mutex
	id   id.ID
	use  *Use
	last State
	busy bool
}

// Use is what a pool that can be used is used through.
type Use struct {
	ID      id.ID
	Volumes contract.Driver
	Claims  *Claims
}

// State is what a look at a pool has found.
type State struct {
	// ID is the pool's; nil while it was never seen.
	ID id.ID
	// TotalBytes and FreeBytes of the file system; 0 when not known.
	TotalBytes, FreeBytes int64
	// Why it cannot be used; empty when it can.
	Why string
}

// marker is what says which pool a folder is.
type marker struct {
	Format int   `json:"format"`
	ID     id.ID `json:"id"`
}

// New is a pool that was not looked at yet.
func New(o Options) *Pool {
	p := &Pool{o: o, last: State{Why: "was not looked at yet"}}
	var m marker
	if b, err := os.ReadFile(o.Remember); err == nil && json.Unmarshal(b, &m) == nil {
		p.id, p.last.ID = m.ID, m.ID
	}
	return p
}

// Name is what its node calls it.
func (p *Pool) Name() string { return p.o.Name }

// State is what the last look has found.
func (p *Pool) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Use gives what the pool is used through. errs.HostFailure when it cannot be used.
func (p *Pool) Use() (*Use, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.use == nil || p.last.Why != "" {
		return nil, errs.New(errs.HostFailure, "storage pool %s cannot be used on this node: it %s", p.o.Name, p.last.Why)
	}
	return p.use, nil
}

// lookTime bounds a look: a file server that is gone never answers.
const lookTime = 10 * time.Second

// Look finds out whether the pool can be used, and how much room is there. One that does
// not answer in 10 s is not usable until it does.
func (p *Pool) Look(ctx context.Context) State {
	p.mu.Lock()
	if p.busy {
		defer p.mu.Unlock()
		return p.last
	}
	p.busy = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.found(p.look())
	}()
	late, free := p.o.Clock.After(lookTime)
	defer free()
	select {
	case <-done:
	case <-ctx.Done():
	case <-late:
		p.mu.Lock()
		p.last.Why = "does not answer: its file system has been asked for " + lookTime.String()
		p.mu.Unlock()
	}
	return p.State()
}

// found notes the end of a look.
func (p *Pool) found(s State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = false
	if err != nil {
		s.Why = err.Error()
	}
	s.ID = p.id
	p.last = s
}

// look is Look without a bound.
func (p *Pool) look() (State, error) {
	var s State
	info, err := os.Stat(p.o.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, errors.New("is missing: there is no folder " + p.o.Path)
	case err != nil:
		return s, plainly("cannot be looked at", err)
	case !info.IsDir():
		return s, errors.New(p.o.Path + " is no folder")
	}
	if err := locksTravel(p.o.Path); err != nil {
		return s, err
	}
	if err := p.identify(); err != nil {
		return s, err
	}
	if err := probe(p.o.Path, p.o.Node); err != nil {
		return s, err
	}
	var at unix.Statfs_t
	if err := unix.Statfs(p.o.Path, &at); err != nil {
		return s, plainly("does not tell its size", err)
	}
	s.TotalBytes, s.FreeBytes = int64(at.Blocks)*at.Bsize, int64(at.Bavail)*at.Bsize
	return s, p.open()
}

func plainly(what string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	return errors.New(what + ": " + err.Error())
}

// identify finds out which pool the folder is, and makes it one if it is none.
func (p *Pool) identify() error {
	m, err := readMarker(p.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		p.mu.Lock()
		known := p.id
		p.mu.Unlock()
		if known != id.Nil {
			return errors.New("has no mark any more that it is pool " + known.String() + ": is its file system mounted?")
		}
		if err := makeMarker(p.o.Path); err != nil {
			return plainly("cannot be marked as a pool", err)
		}
		m, err = readMarker(p.o.Path)
	}
	if err != nil {
		return plainly("has a mark that cannot be read", err)
	}
	return p.recognise(m)
}

func (p *Pool) recognise(m marker) error {
	if m.Format != Format || m.ID == id.Nil {
		return errors.New("is of a format that this agent does not know: upgrade it")
	}
	p.mu.Lock()
	known := p.id
	p.mu.Unlock()
	switch known {
	case m.ID:
		return nil
	case id.Nil:
	default:
		return errors.New("is another pool, " + m.ID.String() + ", than it was, " + known.String() + ": is its file system mounted?")
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = durable.Replace(p.o.Remember, b, true)
	}
	if err != nil {
		return plainly("cannot be kept in mind", err)
	}
	p.mu.Lock()
	p.id = m.ID
	p.mu.Unlock()
	return nil
}

func readMarker(path string) (m marker, err error) {
	b, err := os.ReadFile(filepath.Join(path, markerName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// makeMarker makes a folder a pool, unless it is one already. Of several nodes that do so
// at once, one does it.
func makeMarker(path string) error {
	b, err := json.Marshal(marker{Format: Format, ID: id.New()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(path, ".novacron-*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	to := filepath.Join(path, markerName)
	if err == nil {
		err = os.Link(f.Name(), to)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if err != nil {
		return err
	}
	return durable.SyncFolder(to)
}

// open opens what the pool is used through, once.
func (p *Pool) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.use != nil {
		return nil
	}
	for _, d := range []string{volumesDir, claimsDir} {
		// guests' processes get their disks from the agent, and see none of this
		if err := os.MkdirAll(filepath.Join(p.o.Path, d), 0o700); err != nil {
			return plainly("cannot hold its folders", err)
		}
	}
	volumes, err := p.o.Open(filepath.Join(p.o.Path, volumesDir))
	if err != nil {
		return errors.New("cannot be opened: " + errs.As(err).Message)
	}
	claims := &Claims{dir: filepath.Join(p.o.Path, claimsDir), node: p.o.Node, boot: p.o.Boot, clock: p.o.Clock}
	p.use = &Use{ID: p.id, Volumes: volumes, Claims: claims}
	return nil
}
