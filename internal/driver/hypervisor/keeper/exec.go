package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/jail"
)

// Exit codes of keeper-exec before it has become something else.
const (
	exitNoSpec  = 125 // the keeper died before it said what to become
	exitConfine = 126 // could not confine itself, or exec
)

// jailEnv tells keeper-exec its jail.Spec.
const jailEnv = "NOVACRON_KEEPER_JAIL"

// ExecMain is the second stage; the program calls it first of all when its first
// argument is ExecFace. It returns only if it could not become the hypervisor.
func ExecMain([]string) int {
	walls, err := buildJail(os.Getenv(jailEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, "keeper-exec: build the jail:", err)
		return exitConfine
	}
	if walls != nil && os.Getenv(tryEnv) != "" {
		return try(walls)
	}
	line, err := openHandoff(specFD)
	if err != nil {
		return exitNoSpec
	}
	if err := makeRoom(); err != nil {
		fmt.Fprintln(os.Stderr, "keeper-exec: make room for files:", err)
		return exitConfine
	}
	var spec Exec
	files, err := line.receive(&spec, 2)
	if err != nil || len(files) != 2+spec.Files {
		return exitNoSpec
	}
	fmt.Fprintln(os.Stderr, "keeper-exec:", confineAndExec(spec, walls, files))
	return exitConfine
}

// tryEnv asks keeper-exec to enter its jail and end.
const tryEnv = "NOVACRON_KEEPER_TRY"

// TryJail tells whether a jail can be made on this host, by making one.
func TryJail(ctx context.Context, binary string, walls *jail.Spec) error {
	in, err := json.Marshal(walls)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, ExecFace)
	cmd.Dir, cmd.Env = "/", []string{jailEnv + "=" + string(in), tryEnv + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: jail.Flags}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("try a jail: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func try(walls *jail.Spec) int {
	runtime.LockOSThread()
	if err := walls.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitConfine
	}
	return 0
}

// buildJail does ahead what can be; nil without a jail.
func buildJail(told string) (*jail.Spec, error) {
	if told == "" {
		return nil, nil
	}
	var s jail.Spec
	if err := json.Unmarshal([]byte(told), &s); err != nil {
		return nil, err
	}
	return &s, s.Build()
}

// confineAndExec gives up rights in the order in which each step still has the
// rights it needs: limits and the jail as the user we came as, then the user, then
// the promise to gain nothing any more. The keeper has put us into our cgroups.
func confineAndExec(spec Exec, walls *jail.Spec, files []*os.File) error {
	// a network namespace, capabilities and no_new_privs belong to the thread that
	// execs
	runtime.LockOSThread()
	unix.Umask(0o077)
	if err := arrange(files); err != nil {
		return fmt.Errorf("arrange the hypervisor's files: %w", err)
	}
	if walls != nil {
		if err := walls.Enter(spec.Binds...); err != nil {
			return fmt.Errorf("enter the jail: %w", err)
		}
	}
	if err := limit(spec.Limits); err != nil {
		return err
	}
	if c := spec.Credential; c != nil {
		if err := c.become(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := leaveBehind(spec.Files); err != nil {
		return fmt.Errorf("close inherited files: %w", err)
	}
	if err := syscall.Exec(spec.Path, spec.Argv, spec.Env); err != nil { //nolint:gosec // QEMU and its options: the one text of a user is the guest kernel's command line, an argument of its own
		return fmt.Errorf("exec the hypervisor: %w", err)
	}
	return nil
}

func limit(all []Limit) error {
	for _, l := range all {
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Max, Max: l.Max}); err != nil {
			return fmt.Errorf("set limit %d: %w", l.Resource, err)
		}
	}
	return nil
}

// makeRoom has the kernel make its table of open files as large as arrange needs it.
// While threads share the table, that waits until all processors have seen the new
// one (synchronize_rcu): 10 ms, which nobody waits for now.
func makeRoom() error {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, parkFD+maxFiles+2)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// arrange puts what was handed over where the hypervisor is told to look for it.
func arrange(files []*os.File) error {
	parked := make([]int, len(files))
	for i, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, parkFD)
		if err != nil {
			return err
		}
		parked[i] = fd
		_ = f.Close()
	}
	for i, fd := range parked {
		to := FilesFD + i - 2
		switch i {
		case 0:
			to = ControlFD
		case 1:
			to = SerialFD
		}
		if err := unix.Dup3(fd, to, 0); err != nil {
			return err
		}
	}
	return nil
}

// leaveBehind lets nothing through the exec but what was arranged: not what the
// agent itself may have inherited.
func leaveBehind(files int) error {
	if err := unix.CloseRange(SerialFD+1, FilesFD-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	return unix.CloseRange(uint(FilesFD+files), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
}

// become changes user and groups for good, and leaves no way to capabilities.
func (c *Credential) become() error {
	if err := jail.Drop(); err != nil {
		return err
	}
	if err := syscall.Setgroups(c.Groups); err != nil {
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
