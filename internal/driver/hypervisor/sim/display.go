package sim

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.Displayer = (*Driver)(nil)

// screenWidth and screenHeight are a simulated screen's.
const (
	screenWidth  = 160
	screenHeight = 120
)

// Display implements contract.Displayer: a test picture, told apart by the VM's id.
func (d *Driver) Display(_ context.Context, r contract.Ref) (io.ReadWriteCloser, error) {
	if err := d.screen(r); err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	go func() {
		_ = rfb.Serve(ours, r.VM.String(), testPicture(r.VM))
		_ = ours.Close()
	}()
	return theirs, nil
}

// Screenshot implements contract.Displayer.
func (d *Driver) Screenshot(_ context.Context, r contract.Ref) ([]byte, error) {
	if err := d.screen(r); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err := png.Encode(&out, testPicture(r.VM))
	return out.Bytes(), err
}

// screen tells whether the machine shows one.
func (d *Driver) screen(r contract.Ref) error {
	if d.dead() {
		return errDead()
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	g, err := d.live(r)
	switch {
	case err != nil:
		return err
	case g.status.Phase == vm.PhaseStarting:
		return errs.New(errs.InvalidState, "VM %s has not started yet", r.VM)
	}
	return nil
}

// testPicture has bars in colours of the VM's own.
func testPicture(v id.ID) *image.RGBA {
	p := image.NewRGBA(image.Rect(0, 0, screenWidth, screenHeight))
	for x := range screenWidth {
		c := color.RGBA{R: v[15] ^ uint8(x), G: v[14], B: uint8(255 - x), A: 255}
		for y := range screenHeight {
			p.SetRGBA(x, y, c)
		}
	}
	return p
}
