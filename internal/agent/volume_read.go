package agent

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/novacron/novacron/internal/domain/image/disk"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/sparse"
)

// readVolume sends what a disk holds, of a VM that rests: the control plane holds it
// for as long, and this node would not start it by itself. It returns once the stream
// is open; one that breaks off is not taken for a disk.
func (a *Agent) readVolume(ctx context.Context, p Peer, c *nodelink.ReadVolume) (any, error) {
	s, alive, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	if alive {
		return nil, errs.New(errs.InvalidState, "VM %s is %s on this node: its disks are read while it has no process", c.VM, s.Phase)
	}
	d, err := a.keeps(a.guest(c.VM).snapshot(), c.Volume)
	if err != nil {
		return nil, err
	}
	v, err := d.Inspect(ctx, c.Volume)
	if err != nil {
		return nil, err
	}
	l, done, err := a.layers(v)
	if err != nil {
		return nil, err
	}
	stream, err := p.Bulk(ctx, c.Ticket)
	if err != nil {
		done()
		return nil, err
	}
	go func() {
		defer done()
		defer stream.Close()
		err := sparse.Send(stream, v.SizeBytes, func(tell func(int64, []byte) error) error { return disk.Flatten(l, tell) })
		if err != nil {
			a.log.Warn("a disk was not sent to its end", "vm", c.VM, "volume", c.Volume, "err", err)
			return
		}
		_ = stream.CloseWrite()
	}()
	return nodelink.Done{}, nil
}

// layers opens a volume and what it stands on. What a guest's process wrote into the
// image about a backing file is not looked at.
func (a *Agent) layers(v volume.Volume) (disk.Layer, func(), error) {
	if !a.cfg.Volumes.Capabilities().Content {
		return disk.NewRaw(zeros{}, v.SizeBytes), func() {}, nil
	}
	var open []io.Closer
	done := func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	var below disk.Layer
	files := []hypervisor.File{v.File}
	if v.Backing != nil {
		files = []hypervisor.File{*v.Backing, v.File}
	}
	for _, f := range files {
		file, err := os.Open(f.Path)
		if err != nil {
			done()
			return nil, nil, errs.New(errs.HostFailure, "a file of volume %s cannot be opened", v.ID).Because(err)
		}
		open = append(open, file)
		if below, err = layer(file, f.Format, below); err != nil {
			done()
			return nil, nil, err
		}
	}
	if below.Bytes() != v.SizeBytes {
		done()
		return nil, nil, errs.New(errs.HostFailure, "volume %s has %d bytes by its image, and %d on record", v.ID, below.Bytes(), v.SizeBytes)
	}
	return below, done, nil
}

// Content reads what a base image shows: it is what volumes that are made whole are made
// of.
func Content(base volume.Base, put func(at int64, p []byte) error) error {
	file, err := os.Open(base.File.Path)
	if err != nil {
		return errs.New(errs.HostFailure, "the base image cannot be opened").Because(err)
	}
	defer func() { _ = file.Close() }()
	l, err := layer(file, base.File.Format, nil)
	if err != nil {
		return err
	}
	return disk.Flatten(l, put)
}

func layer(file *os.File, format string, below disk.Layer) (disk.Layer, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, errs.New(errs.HostFailure, "a file of a volume cannot be read").Because(err)
	}
	if format == "raw" {
		return disk.NewRaw(file, info.Size()), nil
	}
	l, err := disk.OpenQCOW2(file, info.Size(), below, unzstd())
	if err != nil {
		return nil, errors.Join(errs.New(errs.Unsupported, "a disk of the VM cannot be read: %s", errs.As(err).Message), err)
	}
	return l, nil
}

// zeros is what a volume without content holds.
type zeros struct{}

// ReadAt implements io.ReaderAt.
func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}
