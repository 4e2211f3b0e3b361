package qemu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// maxSocketPath is what sockaddr_un holds, without its final NUL.
const maxSocketPath = 107

func userName() string { return strconv.Itoa(os.Getuid()) }

// places are the folders of one VM.
type places struct {
	records string // <DataDir>/vms/<vm>
	run     string // <RunDir>/<node>/<vm>
	ram     string // <RAMDir>/<node>/<vm>, a file
}

func (o *Options) places(vm id.ID) places {
	return places{
		records: filepath.Join(o.vmsDir(), vm.String()),
		run:     filepath.Join(o.RunDir, o.NodeShort, vm.String()),
		ram:     filepath.Join(o.RAMDir, o.NodeShort, vm.String()),
	}
}

func (o *Options) vmsDir() string { return filepath.Join(o.DataDir, "vms") }

func (p places) control() string { return filepath.Join(p.run, "control") }
func (p places) serial() string  { return filepath.Join(p.run, "serial") }
func (p places) keeper() string  { return filepath.Join(p.run, "keeper") }

// net is the socket of a network interface in user mode.
func (p places) net(slot int) string { return filepath.Join(p.run, "net"+strconv.Itoa(slot)) }

// inside is the folder in which QEMU itself may make sockets.
func (p places) inside() string { return filepath.Join(p.run, "inside") }

// prepareHost makes the folders that hold those of the VMs, and checks what
// cannot be changed later.
func (o *Options) prepareHost() error {
	if n := len(o.places(id.Nil).control()); n > maxSocketPath {
		return errs.New(errs.InvalidField, "the run folder is too long for socket paths by %d bytes: choose a shorter one", n-maxSocketPath)
	}
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		// The folders of sockets and of memory files are searchable by guests' users;
		// what is in them is not readable.
		{o.vmsDir(), 0o700}, {filepath.Join(o.RunDir, o.NodeShort), 0o711}, {filepath.Join(o.RAMDir, o.NodeShort), 0o711},
	} {
		if err := os.MkdirAll(dir.path, 0o755); err != nil { //nolint:gosec // guests' users pass through
			return errs.New(errs.HostFailure, "a folder of the hypervisor driver cannot be made").Because(err)
		}
		if err := os.Chmod(dir.path, dir.mode); err != nil {
			return errs.New(errs.HostFailure, "a folder of the hypervisor driver is not ours").Because(err)
		}
	}
	return o.checkTmpfs()
}

func (o *Options) checkTmpfs() error {
	var s unix.Statfs_t
	if err := unix.Statfs(o.RAMDir, &s); err != nil {
		return errs.New(errs.HostFailure, "the folder of guest memory cannot be examined").Because(err)
	}
	if s.Type != unix.TMPFS_MAGIC {
		o.Logger.Warn("guest memory is not on tmpfs and will be slow", "folder", o.RAMDir)
	}
	return nil
}

// lockData makes sure that one driver at a time uses the data folder.
func (o *Options) lockData() (*os.File, error) {
	f, err := durable.Lock(filepath.Join(o.DataDir, "hypervisor.lock"), o.Clock)
	switch {
	case errors.Is(err, durable.ErrLocked):
		return nil, errs.New(errs.InUse, "another agent uses this data folder").Because(err)
	case err != nil:
		return nil, errs.New(errs.HostFailure, "the lock of the data folder cannot be taken").Because(err)
	}
	return f, nil
}

// makeRAM makes the file of guest memory, as sparse as the guest leaves it.
func makeRAM(path string, size int64) (err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &s); err != nil {
		return errs.New(errs.HostFailure, "the folder of guest memory cannot be examined").Because(err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < size {
		return errs.New(errs.NoSpace, "this node has %d MiB left for guest memory, the VM needs %d MiB", free>>20, size>>20)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = f.Truncate(size)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return errs.New(errs.HostFailure, "guest memory cannot be set up").Because(err)
	}
	return nil
}

// strays lists VMs that have something in a folder made by us, by name.
func strays(dir string) []id.ID {
	entries, _ := os.ReadDir(dir)
	var out []id.ID
	for _, e := range entries {
		if vm, err := id.Parse(e.Name()); err == nil {
			out = append(out, vm)
		}
	}
	return out
}

// missing tells whether err says that a file is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
