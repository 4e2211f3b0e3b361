package pool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/id"
)

// probe tries what the pool is about to be used for: to make a file that nobody else makes,
// to write and flush it, and to lock it against another one.
func probe(path string, node id.ID) error {
	name := filepath.Join(path, ".probe-"+node.String())
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plainly("does not let files be removed", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return plainly("does not let files be made", err)
	}
	defer func() { _, _ = f.Close(), os.Remove(name) }()
	if _, err := f.WriteString(node.String()); err != nil {
		return plainly("cannot be written to", err)
	}
	if err := f.Sync(); err != nil {
		return plainly("cannot be flushed", err)
	}
	return excludes(f, name)
}

// excludes finds out whether what is made once cannot be made again, and what is locked
// once cannot be locked again.
func excludes(f *os.File, name string) error {
	if again, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		_ = again.Close()
		return errors.New("makes a file twice that is to be made once (O_EXCL)")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return plainly("cannot lock files", err)
	}
	other, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return plainly("does not let files be opened again", err)
	}
	defer func() { _ = other.Close() }()
	if unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return errors.New("locks a file twice at once")
	}
	return nil
}

// locksTravel refuses a network file system whose locks this host keeps to itself.
func locksTravel(path string) error {
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		return plainly("cannot be looked at", err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return plainly("has an unknown file system", err)
	}
	if o := keepsLocks(string(b), at); o != "" {
		return errors.New("is mounted with " + o + ": its locks keep no other host out")
	}
	return nil
}

// keepsLocks gives the option by which locks on a path stay with this host; empty when
// there is none. mounts is as in /proc/self/mountinfo: the last that holds the path counts.
func keepsLocks(mounts, path string) string {
	best, option := "", ""
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		left, right, ok := strings.Cut(line, " - ")
		kind := strings.Fields(right)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		at := unescape(fields[4])
		if !holds(at, path) || len(at) < len(best) {
			continue
		}
		best, option = at, ""
		if strings.HasPrefix(kind[0], "nfs") {
			option = lockOption(strings.Fields(left)[5] + "," + kind[2])
		}
	}
	return option
}

func holds(mount, path string) bool {
	return mount == "/" || path == mount || strings.HasPrefix(path, mount+"/")
}

func lockOption(options string) string {
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "nolock", "local_lock=all", "local_lock=flock", "local_lock=posix":
			return o
		}
	}
	return ""
}

// unescape reads the octal escapes of blanks in the table of mounts.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
