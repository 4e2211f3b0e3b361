package qemu

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// image is one image file of a machine, as QEMU is to open it.
type image struct {
	what string // for people
	file contract.File
	// write: may the guest change it?
	write bool
	// shared: a device that admits other writers has it. QEMU says that of flash, and its
	// locks tell then that it writes, no more: it is the disks that admit nobody.
	shared bool
}

// imagesOf lists a machine's images in the order in which they are handed over, and
// in which they are numbered on the command line: each disk's base before the disk.
func imagesOf(m contract.Machine) []image {
	var out []image
	for i, d := range m.Disks {
		if d.Backing != nil {
			out = append(out, image{fmt.Sprintf("the base image of disk %s (%s)", diskName(i), d.ID), *d.Backing, false, false})
		}
		out = append(out, image{fmt.Sprintf("the image of disk %s (%s)", diskName(i), d.ID), d.File, !d.ReadOnly, false})
	}
	for i, c := range m.CDs {
		out = append(out, image{fmt.Sprintf("the image of CD %s (%s)", cdName(i), c.ID), c.File, false, false})
	}
	if m.Variables != "" {
		out = append(out, image{"the variables of the firmware", contract.File{Path: m.Variables, Format: "raw"}, true, true})
	}
	if m.Medium != nil {
		out = append(out, image{fmt.Sprintf("the CD %s", m.Medium.ID[:12]), m.Medium.File, false, false})
	}
	return out
}

// openImages opens the images of a machine for one process of QEMU. The locks that
// QEMU takes belong to the open files: so they are opened anew for each process, and
// closed here as soon as it has them.
func openImages(m contract.Machine) ([]*os.File, error) {
	var out []*os.File
	for _, i := range imagesOf(m) {
		f, err := i.open()
		if err != nil {
			return out, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (i image) open() (*os.File, error) {
	// O_NOFOLLOW: a path of ours that became a link is somebody's trick
	flags := os.O_RDONLY | unix.O_NOFOLLOW
	if i.write {
		flags = os.O_RDWR | unix.O_NOFOLLOW
	}
	f, err := os.OpenFile(i.file.Path, flags, 0)
	switch {
	case err == nil:
		return f, nil
	case missing(err):
		return nil, errs.New(errs.NotFound, "%s is not on this node", i.what).Because(err)
	default:
		return nil, errs.New(errs.HostFailure, "%s cannot be opened", i.what).Because(err)
	}
}

func closeImages(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// fdset is the set of descriptors, one in number, that an image is opened from: the
// n-th that is handed over is in set n+1.
func fdset(n int) (option, path string) {
	return fmt.Sprintf("fd=%d,set=%d", keeper.FilesFD+n, n+1), fdsetPath(n + 1)
}

func fdsetPath(set int) string { return fmt.Sprintf("/dev/fdset/%d", set) }

// Bytes of an image that QEMU locks, each for one right (block/file-posix.c): those
// from 100 on are held by who uses a right, those from 200 on by who does not share
// it. Right 1 is to write.
const (
	lockUses     = 100
	lockRefuses  = 200
	rightToWrite = 1
)

// assertLocked makes sure that nobody else could open the images that the guest
// writes to. QEMU goes without locks, silently, where it believes that there are
// none.
func assertLocked(m contract.Machine) error {
	for _, i := range imagesOf(m) {
		if !i.write {
			continue
		}
		held, err := locked(i)
		if err != nil {
			return errs.New(errs.HostFailure, "whether %s is locked cannot be told", i.what).Because(err)
		}
		if !held {
			return errs.New(errs.HostFailure, "QEMU has not locked %s: a second process could write to it", i.what)
		}
	}
	return nil
}

// locked tells whether the locks on an image are those of a writer that admits no
// other, unless the image is shared.
func locked(i image) (bool, error) {
	f, err := os.OpenFile(i.file.Path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	bytes := []int64{lockUses + rightToWrite}
	if !i.shared {
		bytes = append(bytes, lockRefuses+rightToWrite)
	}
	for _, at := range bytes {
		// asked, not tried: a try would be in the way of who is to have it
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
			return false, errors.Join(errors.New("ask for a lock"), err)
		}
		if l.Type == unix.F_UNLCK {
			return false, nil
		}
	}
	return true, nil
}
