package agent

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
)

// A VM that moves to another node goes as a row of items on one stream: its volumes, its
// seed among them, and whatever files its hypervisor keeps for it. The node that has it
// offers that, and the one that is to have it takes it: each is told so by the control
// plane, and the two show each other their certificates.

// offerVM lets one other node read what this one has of a VM that rests.
func (a *Agent) offerVM(ctx context.Context, _ Peer, g *guest, c *nodelink.OfferVM) (any, error) {
	if a.cfg.Neighbours == nil {
		return nil, errs.New(errs.Unsupported, "this node gives nothing to other nodes")
	}
	volumes := c.Volumes
	if c.Live {
		volumes = nil
	} else if err := a.rests(ctx, g, c.VM); err != nil {
		return nil, err
	}
	rec := g.snapshot()
	g.pace.begin(c.Operation, c.BytesPerSecond, a.cfg.Clock)
	at, err := a.cfg.Neighbours.Offer(c.To, c.Ticket, func(to io.Writer) error {
		return a.sendVM(a.life, rec, volumes, pacedWriter{a.life, &g.pace, to})
	})
	return nodelink.ImageOffer{Address: at}, err
}

// rests refuses a VM that has a process here, and sees that no reboot gives it one.
func (a *Agent) rests(ctx context.Context, g *guest, v id.ID) error {
	s, alive, err := a.live(ctx, v)
	if err != nil {
		return err
	}
	if alive {
		return errs.New(errs.InvalidState, "VM %s is %s on this node: it is copied while it has no process", v, s.Phase)
	}
	rec := g.snapshot()
	if err := a.released(rec, rec.Epoch); err != nil {
		return err
	}
	return g.change(a.records, func(r *record) { r.PowerOn = false })
}

// sendVM writes what a node has of a VM.
func (a *Agent) sendVM(ctx context.Context, rec record, volumes []id.ID, to io.Writer) error {
	out := itemWriter{to: to}
	for _, v := range append(slices.Clone(volumes), rec.VM) { // the seed has the VM's id
		if _, err := a.cfg.Volumes.Inspect(ctx, v); v == rec.VM && errs.Is(err, errs.NotFound) {
			continue
		}
		if err := out.begin(item{Kind: itemVolume, ID: v}); err != nil {
			return err
		}
		if err := a.cfg.Volumes.Send(ctx, v, to); err != nil {
			return err
		}
	}
	for _, f := range a.filesOf(rec.VM) {
		if err := out.file(ctx, f); err != nil {
			return err
		}
	}
	return out.end(rec.Variables)
}

// kept is a file beside a VM's volumes.
type kept struct{ kind, name, path string }

// filesOf lists the files that are a VM's. A saved memory goes last, after what says of
// which machine it is.
func (a *Agent) filesOf(v id.ID) (out []kept) {
	for _, firmware := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		out = append(out, kept{itemVariables, firmware, a.variables(v, firmware)})
	}
	for _, beside := range []string{".json", ""} {
		out = append(out, kept{itemMemory, beside, a.savedFile(v) + beside})
	}
	return slices.DeleteFunc(out, func(k kept) bool { return gone(k.path) })
}

// takeVM makes a copy of a VM that another node offers. What lies here of it is of a time
// when this node had it, and goes first.
func (a *Agent) takeVM(ctx context.Context, _ Peer, g *guest, c *nodelink.TakeVM) (any, error) {
	if a.cfg.Neighbours == nil {
		return nil, errs.New(errs.Unsupported, "this node takes nothing from other nodes")
	}
	if err := a.rests(ctx, g, c.VM); err != nil {
		return nil, err
	}
	ids := make([]id.ID, 0, len(c.Volumes))
	for _, v := range c.Volumes {
		ids = append(ids, v.ID)
	}
	if err := a.wipe(ctx, c.VM, ids); err != nil {
		return nil, err
	}
	if err := g.change(a.records, func(r *record) { r.Move = nil }); err != nil {
		return nil, err
	}
	if err := a.owns(g, ids); err != nil {
		return nil, err
	}
	t := &transfer{a: a, g: g, vm: c.VM, want: map[id.ID]nodelink.VolumeSpec{}}
	if c.Live {
		if err := a.makeVolumes(ctx, g, c.Volumes); err != nil {
			return nil, err
		}
	} else {
		for _, v := range c.Volumes {
			t.want[v.ID] = v
		}
	}
	return a.takeFrom(ctx, t, c.Source)
}

// takeFrom takes what another node offers of a VM.
func (a *Agent) takeFrom(ctx context.Context, t *transfer, source nodelink.ImageSource) (any, error) {
	count := t.g.transferring(source.Address)
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := a.cfg.Neighbours.Read(ctx, source, io.MultiWriter(count, w))
		_ = w.CloseWithError(errors.Join(err, ctx.Err()))
		read <- err
	}()
	err := t.take(ctx, bufio.NewReaderSize(r, sparse.MaxPiece))
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if broke := <-read; broke != nil && err != nil && !errors.Is(broke, io.ErrClosedPipe) {
		err = errors.Join(brokenOff(broke), err)
	}
	return nodelink.TakeReply{Bytes: count.n.Load(), Relayed: a.cfg.Neighbours.Relayed(source.Address)}, brokenOff(err)
}

// brokenOff gives a stream's failure a code: it is worth another try.
func brokenOff(err error) error {
	if err == nil || errs.CodeOf(err) != errs.Internal {
		return err
	}
	return errs.New(errs.NodeUnreachable, "the node that has the VM did not send it to its end").Because(err)
}

// wipe removes what a VM without a process has here.
func (a *Agent) wipe(ctx context.Context, v id.ID, volumes []id.ID) error {
	if err := a.driver.Release(ctx, v); err != nil {
		return err
	}
	for _, d := range append(slices.Clone(volumes), v) {
		if err := a.cfg.Volumes.Delete(ctx, d); err != nil {
			return err
		}
	}
	return errors.Join(a.discard(v), a.forgetVariables(v))
}

// transfer is a VM that is being taken.
type transfer struct {
	a    *Agent
	g    *guest
	vm   id.ID
	want map[id.ID]nodelink.VolumeSpec
}

func (t *transfer) take(ctx context.Context, from *bufio.Reader) error {
	for n := 0; ; n++ {
		i, err := readItem(from)
		if err != nil {
			return err
		}
		if i.Kind == itemEnd && i.Items != n {
			return errs.New(errs.InvalidImage, "the node that has the VM says that it sent %d items, and %d came", i.Items, n)
		}
		switch i.Kind {
		case itemVolume:
			err = t.volume(ctx, i, from)
		case itemVariables, itemMemory:
			err = t.file(ctx, i, from)
		case itemEnd:
			return t.end(i)
		default:
			err = errs.New(errs.Unsupported, "the node that has the VM sends something that this one does not know: %q; upgrade this node's agent", errs.Clip(i.Kind))
		}
		if err != nil {
			return err
		}
	}
}

func (t *transfer) volume(ctx context.Context, i item, from *bufio.Reader) error {
	spec := volume.Spec{ID: i.ID}
	if i.ID != t.vm {
		w, ok := t.want[i.ID]
		if !ok {
			return errs.New(errs.InvalidImage, "the node that has the VM sends a volume that is not the VM's, or twice")
		}
		delete(t.want, i.ID)
		spec.SizeBytes = w.SizeBytes
		if w.Base != nil {
			var err error
			if spec.Base, err = t.a.base(t.g, i.ID, *w.Base); err != nil {
				return err
			}
		}
	}
	_, err := t.a.cfg.Volumes.Receive(ctx, spec, from)
	return err
}

// placeOf gives where a file that a VM may have lies, and how large it may be.
func (t *transfer) placeOf(i item) (path string, most int64) {
	switch {
	case i.Kind == itemVariables && isFirmware(i.Name):
		return t.a.variables(t.vm, i.Name), mostVariables
	case i.Kind == itemMemory && i.Name == ".json":
		return t.a.savedFile(t.vm) + i.Name, mostVariables
	case i.Kind == itemMemory && i.Name == "":
		return t.a.savedFile(t.vm), mostMemory
	}
	return "", 0
}

// isFirmware tells whether a kind of firmware keeps variables.
func isFirmware(kind string) bool { return kind == vm.FirmwareUEFI || kind == vm.FirmwareSecure }

// file takes a file. Its place is by its kind: a name only chooses among those there are.
func (t *transfer) file(ctx context.Context, i item, from *bufio.Reader) error {
	path, most := t.placeOf(i)
	if path == "" || i.Size < 0 || i.Size > most {
		return errs.New(errs.InvalidImage, "the node that has the VM sends a file that no VM has: %s %q of %d bytes", errs.Clip(i.Kind), errs.Clip(i.Name), i.Size)
	}
	part := path + partSuffix
	err := receiveFile(ctx, part, i.Size, from)
	if err == nil {
		err = os.Rename(part, path)
	}
	if err == nil {
		err = durable.SyncFolder(path)
	}
	if err != nil {
		_ = os.Remove(part)
	}
	return err
}

// partSuffix ends the name of a file that is not all there.
const partSuffix = ".part"

// mostMemory bounds a saved memory: more than any machine has.
const mostMemory = 64 << 40

// end takes note of what the VM has, once all of it is there.
func (t *transfer) end(i item) error {
	if len(t.want) > 0 {
		return errs.New(errs.InvalidImage, "the node that has the VM did not send all of its disks")
	}
	var kinds []string
	for kind := range strings.SplitSeq(i.Name, ",") {
		if isFirmware(kind) {
			kinds = append(kinds, kind)
		}
	}
	return t.g.change(t.a.records, func(r *record) { r.Variables, r.Anew, r.Machine, r.Erased = kinds, nil, nil, false })
}

// counter counts what goes through it.
type counter struct {
	n atomic.Int64
	// from is the address that it comes from.
	from string
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// transferring begins to count what is taken of a VM.
func (g *guest) transferring(from string) *counter {
	c := &counter{from: from}
	g.took.Store(c)
	return c
}

// askTransfer tells how far the taking of a VM is.
func (a *Agent) askTransfer(_ context.Context, _ Peer, c *nodelink.AskTransfer) (any, error) {
	var out nodelink.Transfer
	if n := a.guest(c.VM).took.Load(); n != nil {
		out.Bytes, out.Relayed = n.n.Load(), a.cfg.Neighbours.Relayed(n.from)
	}
	return out, nil
}
