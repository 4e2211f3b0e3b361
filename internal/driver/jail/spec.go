package jail

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags are the namespaces that the process is started into, for clone(2).
const Flags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Spec is what a jail shows of the host.
type Spec struct {
	// At is an empty folder of the host that the new root is mounted over, for the
	// process alone.
	At string `json:"at"`
	// Shown are absolute paths, without symbolic links, of files and folders that are
	// there read-only.
	Shown []string `json:"shown"`
	// Links are symbolic links, path to target.
	Links map[string]string `json:"links,omitempty"`
	// Devices are device files, such as /dev/null.
	Devices []string `json:"devices,omitempty"`
	// Net is the file of the network namespace to enter; "" stays.
	Net string `json:"net,omitempty"`
}

// Bind is one more thing to show, under another path.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Write makes it writable. Nothing in it can be executed.
	Write bool `json:"write,omitempty"`
}

// rootSize bounds the new root, in which there are only empty files and folders.
const rootSize = "size=1m,nr_inodes=4096,mode=755"

// Build mounts the new root. The calling process must be in a mount namespace of
// its own: everything that is mounted there is cut off from the host's first.
func (s *Spec) Build() error {
	// whoever lives there is not who made it
	defer unix.Umask(unix.Umask(0o022))
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cut the mounts off from the host's: %w", err)
	}
	if err := unix.Mount("jail", s.At, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, rootSize); err != nil {
		return fmt.Errorf("mount a root at %s: %w", s.At, err)
	}
	// folders before what is in them, so that each is shown once
	for _, path := range outermost(s.Shown) {
		if err := s.show(path, path, unix.MS_RDONLY|unix.MS_NODEV); err != nil {
			return err
		}
	}
	for path, target := range s.Links {
		if err := s.link(path, target); err != nil {
			return err
		}
	}
	for _, path := range s.Devices {
		if err := s.show(path, path, unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	return nil
}

// Enter adds the binds and makes the new root the only one.
func (s *Spec) Enter(binds ...Bind) error {
	defer unix.Umask(unix.Umask(0o022))
	for _, b := range binds {
		flags := uintptr(unix.MS_NODEV | unix.MS_NOEXEC)
		if !b.Write {
			flags |= unix.MS_RDONLY
		}
		if err := s.show(b.From, b.To, flags); err != nil {
			return err
		}
	}
	if s.Net != "" {
		if err := enterNet(s.Net); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("jail")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return s.pivot()
}

// pivot makes the new root the only one.
func (s *Spec) pivot() error {
	if err := os.Chdir(s.At); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	// the old root lies over the new one
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", "/", "", flags, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}

// show binds a file or folder of the host into the new root.
func (s *Spec) show(from, to string, flags uintptr) error {
	info, err := os.Lstat(from)
	if err != nil {
		return fmt.Errorf("show %s: %w", from, err)
	}
	at := filepath.Join(s.At, to)
	if err := place(at, info.IsDir()); err != nil {
		return fmt.Errorf("make room for %s: %w", to, err)
	}
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s: %w", from, err)
	}
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|flags, ""); err != nil {
		return fmt.Errorf("restrict %s: %w", from, err)
	}
	return nil
}

// place makes an empty folder or file to mount over.
func place(at string, dir bool) error {
	if dir {
		return os.MkdirAll(at, 0o755) //nolint:gosec // its user is not who makes it, and has to go through; nothing in it is secret
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil { //nolint:gosec // its user has to go through
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (s *Spec) link(path, target string) error {
	at := filepath.Join(s.At, path)
	if _, err := os.Lstat(at); err == nil {
		return nil // in a folder that is shown
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil { //nolint:gosec // its user is not who makes it, and has to go through; nothing in it is secret
		return err
	}
	return os.Symlink(target, at)
}

// outermost drops paths that lie in others, and doubles.
func outermost(paths []string) []string {
	sorted := slices.Sorted(slices.Values(paths))
	var out []string
	for _, p := range sorted {
		if n := len(out); n > 0 && (p == out[n-1] || strings.HasPrefix(p, out[n-1]+"/")) {
			continue
		}
		out = append(out, p)
	}
	return out
}
