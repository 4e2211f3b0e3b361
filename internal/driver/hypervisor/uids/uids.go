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
	"os"
	"strconv"
	"strings"

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
		uid, err = p.take(root, owner)
		return err
	})
	return uid, err
}

// held gives the uid that the owner has already, or 0.
func (p *Pool) held(root *os.Root, owner string) int {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		uid, err := strconv.Atoi(e.Name())
		if err != nil || !p.ids.has(uid) {
			continue
		}
		if b, err := root.ReadFile(e.Name()); err == nil && string(b) == owner {
			return uid
		}
	}
	return 0
}

func (r Range) has(uid int) bool { return uid >= r.First && uid < r.First+r.Count }

// take finds a free uid, beginning where the owner's name hashes to, so that a
// uid that was just freed is not the next one given.
func (p *Pool) take(root *os.Root, owner string) (int, error) {
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
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(owner)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = root.Remove(name)
	}
	return err == nil, err
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
	out := map[int]string{}
	err := p.locked(func(root *os.Root) error {
		entries, err := fs.ReadDir(root.FS(), ".")
		if err != nil {
			return err
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
