// Package uids lends each VM a user id of its own from a reserved range.
//
// The range is shared by all agents of a machine: a claim is a file named by the
// uid in a host-wide folder, made with O_EXCL and naming its owner, a VM's record
// folder. A claim whose folder is gone belongs to nobody; it is taken back when
// no process runs under the uid any more. All of this happens under one lock
// file, so that two agents never judge the same claim at once.
//
// Claims live in /run and vanish with a restart of the machine, as the processes
// do.
package uids

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
)

const lockName = "lock"

// Range is a range of user ids, each with a group of the same number.
type Range struct {
	First, Count int
}

// Pool lends ids of a range.
type Pool struct {
	dir   string
	ids   Range
	inUse func(uid int) bool // whether a process runs under it

	mu sync.Mutex
	// known is who had claims when the folder was read, and what was done since; an
	// owner is claimed for by one pool at a time. nil until it was read.
	known map[string]int
	// scouted was found to be free, or is 0.
	scouted int
}

// Open makes a pool on a host-wide folder.
func Open(dir string, r Range) (*Pool, error) {
	if r.First < 1000 || r.Count < 1 {
		return nil, errs.New(errs.OutOfRange,
			"%d user ids from %d: the range for VMs begins at 1000 or above and is not empty", r.Count, r.First)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of user id claims: %w", err)
	}
	return &Pool{dir: dir, ids: r, inUse: running}, nil
}

// locked runs f with the folder open and no other agent looking at it.
func (p *Pool) locked(f func(*os.Root) error) error {
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	lock, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return err
	}
	return f(root)
}

// Claim lends a uid to the VM that owns the folder. The same owner gets the same
// uid again.
func (p *Pool) Claim(owner string) (uid int, err error) {
	err = p.locked(func(root *os.Root) error {
		if uid = p.held(root, owner); uid != 0 {
			return nil
		}
		if uid, err = p.take(root, owner); err == nil {
			p.note(owner, uid)
		}
		return err
	})
	return uid, err
}

// held gives the uid that the owner has already, or 0.
func (p *Pool) held(root *os.Root, owner string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[string]int{}
		for uid, who := range claims(root) {
			if p.ids.has(uid) {
				p.known[who] = uid
			}
		}
	}
	uid := p.known[owner]
	if uid == 0 {
		return 0
	}
	if b, err := root.ReadFile(strconv.Itoa(uid)); err != nil || string(b) != owner {
		delete(p.known, owner)
		return 0
	}
	return uid
}

// claims reads who has which uid.
func claims(root *os.Root) map[int]string {
	out := map[int]string{}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return out
	}
	for _, e := range entries {
		uid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if b, err := root.ReadFile(e.Name()); err == nil {
			out[uid] = string(b)
		}
	}
	return out
}

// Scout looks for a uid that is free, so that the next Claim need not: looking
// through all processes of a busy host takes longer than anything else of it.
func (p *Pool) Scout() {
	uid := p.ids.First + rand.IntN(p.ids.Count) //nolint:gosec // any one will do
	_, err := os.Stat(filepath.Join(p.dir, strconv.Itoa(uid)))
	if !errors.Is(err, fs.ErrNotExist) || p.inUse(uid) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scouted = uid
}

func (p *Pool) takeScouted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	uid := p.scouted
	p.scouted = 0
	return uid
}

func (p *Pool) note(owner string, uid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if uid == 0 {
		delete(p.known, owner)
		return
	}
	p.known[owner] = uid
}

func (r Range) has(uid int) bool { return uid >= r.First && uid < r.First+r.Count }

// take finds a free uid: the scouted one, else beginning where the owner's name
// hashes to, so that a uid that was just freed is not the next one given.
func (p *Pool) take(root *os.Root, owner string) (int, error) {
	if uid := p.takeScouted(); uid != 0 {
		err := write(root, uid, owner)
		if err == nil {
			return uid, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(owner))
	at := int(h.Sum32()) % p.ids.Count
	for i := range p.ids.Count {
		uid := p.ids.First + (at+i)%p.ids.Count
		ok, err := p.try(root, uid, owner)
		if err != nil {
			return 0, err
		}
		if ok {
			return uid, nil
		}
	}
	return 0, errs.New(errs.NoSpace, "all %d user ids for VMs of this machine are taken", p.ids.Count)
}

// try claims one uid if nobody has it: no live owner, and no process that came to
// it without a claim.
func (p *Pool) try(root *os.Root, uid int, owner string) (bool, error) {
	name := strconv.Itoa(uid)
	_, err := root.Stat(name)
	taken := err == nil
	if taken && !p.abandoned(root, name) || p.inUse(uid) {
		return false, nil
	}
	if taken {
		if err := root.Remove(name); err != nil {
			return false, err
		}
	}
	err = write(root, uid, owner)
	return err == nil, err
}

// halfMade is a claim that is being written, under the lock.
const halfMade = "new"

// write makes a claim, which must not be there. It is whole or absent after any
// crash.
func write(root *os.Root, uid int, owner string) error {
	name := strconv.Itoa(uid)
	if _, err := root.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fs.ErrExist)
	}
	err := root.WriteFile(halfMade, []byte(owner), 0o600)
	if err == nil {
		err = root.Rename(halfMade, name)
	}
	return err
}

// abandoned tells whether a claim's owner is gone. A claim that names nobody was
// left by a crash in the middle of making it.
func (p *Pool) abandoned(root *os.Root, name string) bool {
	b, err := root.ReadFile(name)
	if err != nil {
		return false
	}
	if len(b) == 0 {
		return true
	}
	_, err = os.Stat(string(b)) //nolint:gosec // only asked whether it exists; the folder of claims is ours
	return errors.Is(err, fs.ErrNotExist)
}

// Release gives back what the owner has; nothing to give back is fine.
func (p *Pool) Release(owner string) error {
	return p.locked(func(root *os.Root) error {
		uid := p.held(root, owner)
		if uid == 0 {
			return nil
		}
		p.note(owner, 0)
		return root.Remove(strconv.Itoa(uid))
	})
}

// LentToOther tells whether the uid is one of the pool's that somebody else than
// the owner has.
func (p *Pool) LentToOther(uid int, owner string) (lent bool, err error) {
	if !p.ids.has(uid) {
		return false, nil
	}
	err = p.locked(func(root *os.Root) error {
		b, err := root.ReadFile(strconv.Itoa(uid))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		lent = err == nil && string(b) != owner && !p.abandoned(root, strconv.Itoa(uid))
		return err
	})
	return lent, err
}

// Owners lists who has claims, by uid.
func (p *Pool) Owners() (map[int]string, error) {
	var out map[int]string
	err := p.locked(func(root *os.Root) error {
		out = claims(root)
		return nil
	})
	return out, err
}

// running looks through /proc for a process of the uid.
func running(uid int) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	want := "\nUid:\t" + strconv.Itoa(uid) + "\t"
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err == nil && bytes.Contains(b, []byte(want)) {
			return true
		}
	}
	return false
}
