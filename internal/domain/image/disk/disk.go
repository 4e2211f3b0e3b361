package disk

import (
	"errors"
	"io"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Format is a format that is read here.
type Format string

// The formats.
const (
	VMDK Format = "vmdk"
	VHD  Format = "vhd"
	VHDX Format = "vhdx"
	VDI  Format = "vdi"
)

// Foreign tells whether a format is one of these, and so has to be converted before a
// guest uses the disk.
func Foreign(format string) (Format, bool) {
	switch f := Format(format); f {
	case VMDK, VHD, VHDX, VDI:
		return f, true
	default:
		return "", false
	}
}

// MaxVirtual is the largest disk that is taken, in bytes: what a VM's disk may be.
const MaxVirtual = 64 * unit.TiB

const (
	sector = 512
	// piece is the most that Walk hands over at once.
	piece = unit.MiB
)

// Disk is a file in one of the formats, whose headers are in order.
type Disk struct {
	Format Format
	// Bytes is what a guest sees.
	Bytes  int64
	blocks blocks
	file   file
}

// blocks is how a format finds what is in the disk.
type blocks interface {
	// size is of a block, in bytes: the disk is a row of them.
	size() int64
	// walk tells, in order, of the blocks that have something in them, and where in
	// the file that begins.
	walk(tell func(n, at int64) error) error
	// read gives the disk's content of a block, from byte skip of it on.
	read(p []byte, n, at, skip int64) error
}

// Sniff names the format of a file by its magic number; empty for none of these.
// head is its beginning, of 512 bytes at least where it has them, and tail its last
// 512 bytes.
func Sniff(head, tail []byte) Format {
	has := func(b []byte, at int, magic string) bool {
		return len(b) >= at+len(magic) && string(b[at:at+len(magic)]) == magic
	}
	switch {
	case has(head, 0, vmdkMagic):
		return VMDK
	case has(head, 0, vhdxMagic):
		return VHDX
	case has(head, vdiMagicAt, vdiMagic):
		return VDI
	case has(head, 0, vhdMagic), has(tail, 0, vhdMagic):
		return VHD
	default:
		return ""
	}
}

// Open reads the headers of a file of a format, and refuses, with
// errs.InvalidImage, what is damaged, hostile or builds on other files.
func Open(r io.ReaderAt, size int64, f Format) (*Disk, error) {
	open := map[Format]func(file) (blocks, int64, error){VMDK: openVMDK, VHD: openVHD, VHDX: openVHDX, VDI: openVDI}[f]
	if open == nil {
		return nil, refuse("the format %q is none that is read", string(f))
	}
	in := file{r, size}
	b, bytes, err := open(in)
	if err != nil {
		return nil, err
	}
	if bytes <= 0 || bytes > MaxVirtual || bytes%sector != 0 {
		return nil, refuse("the disk's size of %d bytes is not between 512 bytes and %s in whole sectors", bytes, unit.FormatBytes(MaxVirtual))
	}
	return &Disk{Format: f, Bytes: bytes, blocks: b, file: in}, nil
}

// Walk hands over what the disk holds, in order, in pieces of at most 1 MiB that
// are good until the call returns. What it leaves out is zero. The pieces never have
// more bytes in all than the file could hold: errs.InvalidImage otherwise, and for
// whatever else is wrong in the tables.
func (d *Disk) Walk(tell func(at int64, p []byte) error) error {
	buf := make([]byte, min(piece, d.blocks.size()))
	return d.blocks.walk(func(n, at int64) error {
		begin := n * d.blocks.size()
		length := min(d.blocks.size(), d.Bytes-begin)
		for skip := int64(0); skip < length; {
			p := buf[:min(int64(len(buf)), length-skip)]
			if err := d.blocks.read(p, n, at, skip); err != nil {
				return err
			}
			if err := tell(begin+skip, p); err != nil {
				return err
			}
			skip += int64(len(p))
		}
		return nil
	})
}

// file is what is read, and how long it is.
type file struct {
	r    io.ReaderAt
	size int64
}

// part reads exactly n bytes; a file that ends before is refused.
func (f file) part(at, n int64, what string) ([]byte, error) {
	p := make([]byte, n)
	return p, f.full(p, at, what)
}

func (f file) full(p []byte, at int64, what string) error {
	if !f.has(at, int64(len(p))) {
		return refuse("the %s lies outside of the file, which has %d bytes", what, f.size)
	}
	if n, err := f.r.ReadAt(p, at); n < len(p) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return refuse("the %s lies outside of the file", what)
		}
		return errs.New(errs.HostFailure, "the image cannot be read").Because(err)
	}
	return nil
}

// has tells whether some bytes lie in the file.
func (f file) has(at, n int64) bool {
	return at >= 0 && n >= 0 && at <= f.size && n <= f.size-at
}

// plain is how blocks lie whose bytes are the disk's.
type plain struct{ file file }

func (d plain) read(p []byte, _, at, skip int64) error {
	return d.file.full(p, at+skip, "block of data")
}

// budget counts blocks against what the file has room for.
type budget struct{ left int64 }

// room gives a budget of blocks of which each has some bytes of a file.
func (f file) room(each int64) *budget { return &budget{f.size / each} }

func (b *budget) take() error {
	if b.left--; b.left < 0 {
		return refuse("the tables name more blocks of data than the file has room for")
	}
	return nil
}

func refuse(format string, args ...any) error {
	return errs.New(errs.InvalidImage, format, args...)
}

// claim is something that a file says and that must not be so.
type claim struct {
	bad  bool
	says error
}

// none gives the first claim that is bad.
func none(claims ...claim) error {
	for _, c := range claims {
		if c.bad {
			return c.says
		}
	}
	return nil
}

// power tells whether n is a power of two from one to another.
func power(n, from, to int64) bool { return n >= from && n <= to && n&(n-1) == 0 }

// up divides and rounds up.
func up(n, by int64) int64 { return (n + by - 1) / by }
