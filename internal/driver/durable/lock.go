package durable

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// ErrLocked says that another process holds a lock.
var ErrLocked = errors.New("durable: another process holds the lock")

const (
	// lockPatience is how long a lock is waited for. A process that was killed
	// leaves its lock for a moment to a child that it had forked and that has not
	// yet become another program: with the child's exec the lock is free.
	lockPatience = time.Second
	lockLook     = 5 * time.Millisecond
)

// Lock opens a file, which it makes if it is missing, and takes its exclusive
// lock: see Hold.
func Lock(path string, c clock.Clock) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := Hold(f, c); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Hold takes the exclusive lock of a file until it is closed or the process ends.
// ErrLocked when another process has it.
func Hold(f *os.File, c clock.Clock) error {
	for until := c.Boot() + lockPatience; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case c.Boot() >= until:
			return ErrLocked
		}
		if err := c.Sleep(context.Background(), lockLook); err != nil {
			return err
		}
	}
}
