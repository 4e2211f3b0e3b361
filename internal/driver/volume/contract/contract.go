// Package contract says what a volume driver promises its agent: disks of VMs,
// as files or devices on one node, named by id; some, such as seeds, are written by
// their agent and only read by a guest.
//
// Every method may be repeated with the same arguments and ends in the same
// world. Create is all or nothing: after an error or a crash no volume of that
// id is visible (leftovers of an interrupted Create are swept when the driver
// is opened). Delete of what is not there succeeds. A volume in use by a
// hypervisor is the caller's business: the driver knows no VMs.
package contract

import (
	"bufio"
	"context"
	"io"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Driver keeps volumes on one node. Implementations are safe for concurrent use.
type Driver interface {
	Capabilities() Capabilities
	// Create makes a volume, copy-on-write from its base where it has one. The
	// same id with the same size and base is answered with the volume there is;
	// with others it is refused with errs.AlreadyExists. errs.NoSpace when full.
	Create(ctx context.Context, s Spec) (Volume, error)
	// Copy makes a volume of the size, base and content of another that nobody has
	// open, sharing its blocks where the place can. All or nothing, as Create; the
	// same id again is answered with the volume there is, if it has the size and base
	// of from, and refused with errs.AlreadyExists otherwise. Afterwards neither
	// knows of the other. errs.NotFound when from is not there.
	Copy(ctx context.Context, volume, from id.ID) (Volume, error)
	// Grow makes a volume larger: what is there stays, the rest reads as zeros. The
	// size it has is answered with the volume as it is; a smaller one is refused with
	// errs.ShrinkNotAllowed. A volume that a hypervisor has open is grown by that one:
	// resize, unless nil, makes the image so large, and the driver only takes note of
	// it. After an error the volume has its old size or the new one and is whole;
	// Grow again settles it.
	Grow(ctx context.Context, volume id.ID, sizeBytes int64, resize func(context.Context) error) (Volume, error)
	// Write makes a volume of a content that guests only read, or gives one that Write
	// made another content. After an error or a crash it has the old content or the
	// new one, whole; who has the old one open keeps reading that. The content it has
	// already is left alone. Such a volume is neither copied nor grown
	// (errs.Unsupported); under the id of another one it is refused with
	// errs.AlreadyExists. The content is whole sectors of 512 bytes, at most MaxWrite.
	Write(ctx context.Context, volume id.ID, content []byte) (Volume, error)
	// Send writes a volume that nobody has open to a stream that Receive of a driver of
	// this kind reads: what it holds of its own, without its base. errs.NotFound when it
	// is not there.
	Send(ctx context.Context, volume id.ID, to io.Writer) error
	// Receive makes a volume of what Send wrote elsewhere, and takes no byte of what
	// follows on the stream. All or nothing, as Create, but a volume of the id, of
	// whatever content, is refused with errs.AlreadyExists. What comes has to be of the
	// size and base of s, or a content of Write where s has no size (errs.InvalidImage),
	// and may come from a stranger.
	Receive(ctx context.Context, s Spec, from *bufio.Reader) (Volume, error)
	// Delete removes a volume.
	Delete(ctx context.Context, volume id.ID) error
	// Inspect gives one volume, or errs.NotFound.
	Inspect(ctx context.Context, volume id.ID) (Volume, error)
	// List gives all volumes, in order of their ids.
	List(ctx context.Context) ([]Volume, error)
	// Usage gives the capacity of the place where volumes live.
	Usage(ctx context.Context) (Usage, error)
}

// MaxWrite bounds the content of a volume that Write makes, in bytes.
const MaxWrite = 16 << 20

// Capabilities answers questions about a volume driver.
type Capabilities struct {
	// CopyOnWrite: does a volume with a base cost only what the guest changed?
	CopyOnWrite bool
	// Thin: does an empty volume cost next to nothing?
	Thin bool
	// Content: does a volume hold what is written to it, and show what its base holds?
	// Simulated ones do not, and do not look whether their base is there.
	Content bool
}

// Spec is the volume wanted.
type Spec struct {
	ID id.ID
	// SizeBytes is what the guest sees: a multiple of 512, at least the base's.
	SizeBytes int64
	// Base is the read-only image below; nil for an empty volume.
	Base *Base
}

// Base is an image's file on this host, whose format was stored at import.
type Base struct {
	File        hypervisor.File
	VirtualSize int64 // bytes
}

// Volume is a volume that exists.
type Volume struct {
	ID        id.ID
	SizeBytes int64
	File      hypervisor.File
	Backing   *hypervisor.File
	// ReadOnly: was it made by Write?
	ReadOnly bool
	// AllocatedBytes is what it occupies now.
	AllocatedBytes int64
}

// Usage is the capacity of a place, in bytes.
type Usage struct {
	TotalBytes, FreeBytes int64
}
