package dir

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
)

// A volume on a stream is a head (magic, whether guests only read it, the size of its
// file) and its file, without its holes.
const (
	streamMagic = "novavol1"
	streamHead  = len(streamMagic) + 1 + 8
)

// Send implements contract.Driver.
func (d *Driver) Send(ctx context.Context, v id.ID, to io.Writer) error {
	leave, err := d.turns.Take(ctx, v)
	if err != nil {
		return err
	}
	defer leave()
	r, err := d.known(v)
	if err != nil {
		return err
	}
	name := v.String() + d.suffix
	if r.ReadOnly {
		name = v.String() + contentSuffix
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return broken(v, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return broken(v, err)
	}
	head := append([]byte(streamMagic), 0)
	if r.ReadOnly {
		head[len(streamMagic)] = 1
	}
	if _, err := to.Write(binary.BigEndian.AppendUint64(head, uint64(info.Size()))); err != nil {
		return err
	}
	return sparse.Send(to, info.Size(), func(tell func(int64, []byte) error) error { return sparse.Pieces(ctx, f, info.Size(), tell) })
}

// Receive implements contract.Driver.
func (d *Driver) Receive(ctx context.Context, s volume.Spec, from *bufio.Reader) (volume.Volume, error) {
	leave, err := d.turns.Take(ctx, s.ID)
	if err != nil {
		return volume.Volume{}, err
	}
	defer leave()
	switch _, err := d.read(s.ID); {
	case err == nil:
		return volume.Volume{}, errs.New(errs.AlreadyExists, "volume %s exists on this node", s.ID)
	case !errors.Is(err, fs.ErrNotExist):
		return volume.Volume{}, broken(s.ID, err)
	}
	content, size, err := readHead(from)
	switch {
	case err != nil:
		return volume.Volume{}, makeError(s.ID, err)
	case content != (s.SizeBytes == 0) || content && size > volume.MaxWrite:
		return volume.Volume{}, errs.New(errs.InvalidImage, "what came for volume %s is not of its kind", s.ID)
	case content:
		return d.receiveContent(s.ID, size, from)
	}
	return d.receiveImage(ctx, s, size, from)
}

func (d *Driver) receiveImage(ctx context.Context, s volume.Spec, size int64, from *bufio.Reader) (volume.Volume, error) {
	want, err := d.check(s)
	if err == nil {
		err = checkBase(s.Base)
	}
	if err != nil {
		return volume.Volume{}, err
	}
	err = d.makeOf(s.ID, want, func(dst *os.File) error {
		if err := receiveInto(ctx, dst, size, from); err != nil {
			return err
		}
		if d.content != nil {
			return wholeAs(size, want)
		}
		return rebase(dst, want)
	})
	if err != nil {
		return volume.Volume{}, makeError(s.ID, err)
	}
	return d.volume(s.ID, want)
}

func readHead(from io.Reader) (content bool, size int64, err error) {
	head := make([]byte, streamHead)
	if _, err := io.ReadFull(from, head); err != nil {
		return false, 0, errors.Join(sparse.ErrBroken, err)
	}
	n := binary.BigEndian.Uint64(head[len(streamMagic)+1:])
	kind := head[len(streamMagic)]
	if string(head[:len(streamMagic)]) != streamMagic || kind > 1 || n == 0 || n > uint64(2*maxSize) {
		return false, 0, sparse.ErrBroken
	}
	return kind == 1, int64(n), nil
}

// receiveInto writes what comes into an empty file.
func receiveInto(ctx context.Context, dst *os.File, size int64, from *bufio.Reader) error {
	if err := ctx.Err(); err != nil {
		return cancelled(err)
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	return sparse.Receive(from, size, func(at int64, p []byte) error {
		if err := ctx.Err(); err != nil {
			return cancelled(err)
		}
		_, err := dst.WriteAt(p, at)
		return err
	})
}

func (d *Driver) receiveContent(v id.ID, size int64, from *bufio.Reader) (volume.Volume, error) {
	content := make([]byte, size)
	err := sparse.Receive(from, size, func(at int64, p []byte) error {
		copy(content[at:], p)
		return nil
	})
	if err == nil {
		err = checkContent(v, content)
	}
	if err == nil {
		err = d.writeContent(v, content, true)
	}
	if err != nil {
		return volume.Volume{}, makeError(v, err)
	}
	return d.volume(v, record{ReadOnly: true})
}

// errForeign says that what came is no image of ours.
func errForeign(why string) error {
	return errs.New(errs.InvalidImage, "what came is no image that this system made: %s", why)
}

// known features of an image of ours: none that changes what is where (dirty and corrupt
// marks are QEMU's own business).
const (
	harmless    = 1 | 2
	autoClearAt = 88
)

// rebase looks at the header of an image that came from elsewhere, and gives it the name
// of its base here. The rest is a guest's, and QEMU's to judge within its jail.
func rebase(f *os.File, want record) error {
	var b [headerLength]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return errForeign("it has no header")
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	switch {
	case string(b[:4]) != "QFI\xfb" || u32(4) != 3 || u32(20) != clusterBits || u32(32) != 0 || u32(100) < headerLength:
		return errForeign("its header is another one")
	case u64(72)&^harmless != 0:
		return errForeign("it has features that none of ours has")
	case u64(sizeAt) != uint64(want.SizeBytes):
		return errForeign("it is of another size than is on record")
	}
	return writeBase(f, b[:], want.Backing)
}

// writeBase makes the header name a base, or none. The name has its place behind the
// header and its extensions, in the first cluster, which nothing else is in.
func writeBase(f *os.File, head []byte, base *contract.File) error {
	fresh, err := header(int64(binary.BigEndian.Uint64(head[sizeAt:])), int64(binary.BigEndian.Uint32(head[36:])), base)
	if err != nil {
		return err
	}
	// what QEMU keeps in the fixed part stays: where its tables are, and its marks, but
	// those of extensions, which are gone
	copy(fresh[sizeAt:headerLength-4], head[sizeAt:headerLength-4])
	clear(fresh[autoClearAt : autoClearAt+8])
	_, err = f.WriteAt(append(fresh, make([]byte, clusterSize-len(fresh))...), 0)
	return err
}
