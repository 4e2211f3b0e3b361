package qemu

import (
	"bytes"
	"context"
	"image/png"
	"io"
	"path/filepath"
	"strings"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.Displayer = (*Driver)(nil)

// vncSocket is the name of the socket that QEMU makes in its folder.
const vncSocket = "vnc"

// addScreen adds a graphic card, last, so that devices of earlier machines keep
// their places, and the server of its screen. Viewers always share: none can send
// another away.
func (w *jsonArgs) addScreen(s shape) {
	w.add("-device", object{"driver": "VGA", "id": "video0"})
	// a comma would begin another option
	path := strings.ReplaceAll(filepath.Join(s.inside, vncSocket), ",", ",,")
	w.args = append(w.args, "-vnc", "unix:"+path+",share=force-shared")
}

// addTablet adds a pointer that is where a viewer points. A mouse would tell how far it
// was moved, and the guest's pointer would be somewhere else than the viewer's.
func (w *jsonArgs) addTablet() {
	w.add("-device", object{"driver": "qemu-xhci", "id": "usb0"})
	w.add("-device", object{"driver": "usb-tablet", "id": "tablet0", "bus": "usb0.0"})
	// SeaBIOS reads how many milliseconds it waits for devices at its ports, as a number
	// of one byte: ours are there at once, and it would wait 100
	w.args = append(w.args, "-fw_cfg", "name=etc/usb-time-sigatt,string=\x05")
}

// Display implements contract.Displayer.
func (d *Driver) Display(ctx context.Context, r contract.Ref) (io.ReadWriteCloser, error) {
	g, err := d.started(r)
	if err != nil {
		return nil, err
	}
	if !g.rec.Machine.Screen {
		return nil, g.noScreen()
	}
	c, err := g.dialInside(ctx, vncSocket)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the screen of VM %s cannot be reached", r.VM).Because(err)
	}
	return c, nil
}

// Screenshot implements contract.Displayer. It looks as a viewer does: nothing that
// the hypervisor wrote is handed on but pixels.
func (d *Driver) Screenshot(ctx context.Context, r contract.Ref) ([]byte, error) {
	c, err := d.Display(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := d.within(ctx, 2*answerTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	picture, err := rfb.Look(c)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the screen of VM %s cannot be seen", r.VM).Because(err)
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return nil, errs.New(errs.HostFailure, "the screen of VM %s cannot be made a picture", r.VM).Because(err)
	}
	return out.Bytes(), nil
}
