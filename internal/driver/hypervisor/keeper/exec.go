package keeper

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of keeper-exec before it has become something else.
const (
	exitNoSpec  = 125 // the keeper died before it said what to become
	exitConfine = 126 // could not confine itself, or exec
)

// ExecMain is the second stage; the program calls it first of all when its first
// argument is ExecFace. It returns only if it could not become the hypervisor.
func ExecMain([]string) int {
	line, err := openHandoff(specFD)
	if err != nil {
		return exitNoSpec
	}
	var spec Exec
	files, err := line.receive(&spec, 2)
	if err != nil {
		return exitNoSpec
	}
	for i, fd := range []int{ControlFD, SerialFD} {
		if err := unix.Dup3(int(files[i].Fd()), fd, 0); err != nil {
			return exitNoSpec
		}
	}
	fmt.Fprintln(os.Stderr, "keeper-exec:", confineAndExec(spec))
	return exitConfine
}

// confineAndExec gives up rights in the order in which each step still has the
// rights it needs: limits as the user we came as, then the user, then the promise
// to gain nothing any more. The keeper has put us into our cgroups.
func confineAndExec(spec Exec) error {
	// no_new_privs belongs to the thread that execs.
	runtime.LockOSThread()
	unix.Umask(0o077)
	for _, l := range spec.Limits {
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Max, Max: l.Max}); err != nil {
			return fmt.Errorf("set limit %d: %w", l.Resource, err)
		}
	}
	if c := spec.Credential; c != nil {
		if err := c.become(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// What the agent itself may have inherited stays behind.
	if err := unix.CloseRange(SerialFD+1, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited files: %w", err)
	}
	if err := syscall.Exec(spec.Path, spec.Argv, spec.Env); err != nil { //nolint:gosec // what the driver built, of no text of a user
		return fmt.Errorf("exec the hypervisor: %w", err)
	}
	return nil
}

// become changes user and group for good.
func (c *Credential) become() error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setresgid(c.GID, c.GID, c.GID); err != nil {
		return fmt.Errorf("become group %d: %w", c.GID, err)
	}
	if err := syscall.Setresuid(c.UID, c.UID, c.UID); err != nil {
		return fmt.Errorf("become user %d: %w", c.UID, err)
	}
	return nil
}
