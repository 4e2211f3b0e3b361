package pglocal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// takeLock takes the directory's lock or says who holds it.
func takeLock(o Options) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(o.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of %s: %w", o.Dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", o.Dir, err)
	}
	who := "another process"
	if pid, ok := o.runningPID(); ok {
		who = "process " + strconv.Itoa(pid)
	}
	return nil, errs.New(errs.Conflict, "PostgreSQL in %s is already in use by %s", o.Dir, who).Because(ErrRunning)
}

// removeStale removes the marks of a server that is gone. Holding the lock
// proves it: PostgreSQL itself would take any live process with the same number
// for its predecessor and refuse to start.
func (c *Cluster) removeStale() error {
	for _, f := range []string{
		filepath.Join(c.opts.data(), "postmaster.pid"),
		filepath.Join(c.opts.SocketDir, ".s.PGSQL.5432"),
		filepath.Join(c.opts.SocketDir, ".s.PGSQL.5432.lock"),
	} {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove a stale %s: %w", f, err)
		}
	}
	return nil
}

// runningPID reads postmaster.pid and checks that the process is a PostgreSQL
// of this directory.
func (o Options) runningPID() (int, bool) {
	raw, err := os.ReadFile(filepath.Join(o.data(), "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, false
	}
	// a postmaster's working directory is its data directory
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	if err != nil {
		return 0, false
	}
	want, err := filepath.EvalSymlinks(o.data())
	return pid, err == nil && cwd == want
}

// StopRunning stops the server of the directory, whoever started it, and
// returns when it is gone. It is no error if none runs.
func StopRunning(ctx context.Context, opts Options) error {
	o := opts.filled()
	asked := 0
	for {
		lock, err := takeLock(o)
		if err == nil {
			return lock.Close()
		}
		if os.IsNotExist(errors.Unwrap(err)) {
			return nil
		}
		if !errors.Is(err, ErrRunning) {
			return err
		}
		if pid, ok := o.runningPID(); ok && pid != asked {
			if err := unix.Kill(pid, unix.SIGINT); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop PostgreSQL (process %d): %w", pid, err)
			}
			asked = pid
		}
		if err := o.Clock.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for PostgreSQL in %s to stop: %w", o.Dir, err)
		}
	}
}
