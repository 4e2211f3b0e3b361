package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// marker is instance.json: this folder is ours, and what has to stay the same.
type marker struct {
	MadeBy string `json:"made_by"`
	// Listen is the address last listened on; agents remember it.
	Listen string `json:"listen,omitempty"`
}

const madeBy = "novacron up"

// state is state.json in the run folder: who runs.
type state struct {
	Up       process.Identity            `json:"up"`
	Ready    bool                        `json:"ready"`
	Summary  Summary                     `json:"summary"`
	Children map[string]process.Identity `json:"children"`
}

// ErrRunning says that another process holds the instance.
var ErrRunning = errors.New("the instance runs already")

// takeLock takes the instance, or says who has it.
func takeLock(p Paths) (*os.File, error) {
	f, err := os.OpenFile(p.lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the lock of %s cannot be opened", p.Data).Because(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := holder(f)
		_ = f.Close()
		return nil, errs.New(errs.Conflict, "the instance in %s runs already, as process %s: stop it with 'novacron down', "+
			"or use another --data-dir and --listen", p.Data, pid).Because(ErrRunning)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, hostError(err, "the lock of %s cannot be written", p.Data)
	}
	return f, nil
}

// holder reads the process that wrote its id into the lock.
func holder(f *os.File) string {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return pid
	}
	return "(starting)"
}

// locked tells whether an up holds the instance.
func locked(p Paths) (pid int, held bool, err error) {
	f, err := os.Open(p.lock())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, errs.New(errs.Forbidden, "the instance in %s belongs to another user", p.Data).Because(err)
	}
	defer func() { _ = f.Close() }()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return 0, false, nil
	}
	pid, _ = strconv.Atoi(holder(f))
	return pid, true, nil
}

func readState(p Paths) (state, bool) {
	var s state
	b, err := os.ReadFile(p.state())
	return s, err == nil && json.Unmarshal(b, &s) == nil
}

func (s state) write(p Paths) error { return writeJSON(p.state(), s) }

func readMarker(p Paths) (marker, bool) {
	var m marker
	b, err := os.ReadFile(p.marker())
	return m, err == nil && json.Unmarshal(b, &m) == nil && m.MadeBy == madeBy
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = durable.Replace(path, append(b, '\n'), false)
	}
	if err != nil {
		return hostError(err, "%s cannot be written", path)
	}
	return nil
}

// hostError words what went wrong on this machine; a full disk has its own code.
func hostError(err error, format string, args ...any) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errs.New(errs.NoSpace, "%s: the disk is full", fmt.Sprintf(format, args...)).Because(err)
	}
	return errs.New(errs.HostFailure, format, args...).Because(err)
}

// passable lets other users through to what is theirs, and see nothing.
const passable os.FileMode = 0o711

// makeDirs makes the places of the instance.
func makeDirs(p Paths, owner *pglocal.Owner) error {
	if err := claimRun(p); err != nil {
		return err
	}
	// Guests' users pass through the data folder to their disks, and the database's
	// and the server's user to theirs.
	for _, d := range []struct {
		path  string
		mode  os.FileMode
		owner *pglocal.Owner
	}{
		{p.Logs(), 0o700, nil}, {p.nodes(), passable, nil}, {p.server(), 0o700, owner}, {filepath.Dir(p.Socket()), 0o700, owner},
	} {
		err := os.MkdirAll(d.path, d.mode)
		if err == nil {
			err = os.Chmod(d.path, d.mode)
		}
		if err == nil && d.owner != nil {
			err = os.Chown(d.path, d.owner.UID, d.owner.GID)
		}
		if err != nil {
			return hostError(err, "the folder %s cannot be made", d.path)
		}
	}
	return nil
}

// claimData makes the data folder ours. One that holds anything else is left
// alone: clean would remove it.
func claimData(p Paths) error {
	if err := os.MkdirAll(filepath.Dir(p.Data), 0o755); err != nil { //nolint:gosec // guests' users pass through
		return hostError(err, "the folder above %s cannot be made", p.Data)
	}
	if err := os.Mkdir(p.Data, passable); err != nil && !errors.Is(err, fs.ErrExist) {
		return hostError(err, "the data folder %s cannot be made", p.Data)
	}
	if _, ours := readMarker(p); ours {
		return nil
	}
	entries, err := os.ReadDir(p.Data)
	if err != nil {
		return hostError(err, "the data folder %s cannot be read", p.Data)
	}
	if len(entries) > 0 {
		return errs.New(errs.Conflict, "%s is not empty and was not made by 'novacron up' (it holds %s): choose another --data-dir",
			p.Data, errs.Clip(entries[0].Name()))
	}
	if err := os.Chmod(p.Data, passable); err != nil {
		return hostError(err, "the data folder %s is not ours", p.Data)
	}
	return writeJSON(p.marker(), marker{MadeBy: madeBy})
}

// claimRun makes the run folder, and checks that nobody laid one there for us:
// /tmp is everyone's.
func claimRun(p Paths) error {
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = passable // the server's user passes through
	}
	if err := os.Mkdir(p.Run, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return hostError(err, "the run folder %s cannot be made", p.Run)
	}
	info, err := os.Lstat(p.Run)
	if err != nil {
		return hostError(err, "the run folder %s cannot be read", p.Run)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return errs.New(errs.Forbidden, "%s belongs to another user: remove it, or set XDG_RUNTIME_DIR", p.Run)
	}
	if err := os.Chmod(p.Run, mode); err != nil {
		return hostError(err, "the run folder %s is not ours", p.Run)
	}
	return nil
}
