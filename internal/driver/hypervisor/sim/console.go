package sim

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const prompt = "sim# "

// console is the one writer attached to a guest.
type console struct {
	io.ReadCloser
	host   *Host
	driver *Driver
	vm     id.ID
	once   sync.Once
	line   strings.Builder // guarded by Host.mu
}

// Console implements contract.Driver.
func (d *Driver) Console(ctx context.Context, r contract.Ref) (io.ReadWriteCloser, error) {
	if d.dead() {
		return nil, errDead()
	}
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := d.live(r)
	if err != nil {
		return nil, err
	}
	if g.console != nil {
		return nil, errs.New(errs.Conflict, "the console of VM %s is in use", r.VM)
	}
	// The session outlives the call that opened it; closing or the driver's end
	// ends it.
	rd := d.tail(context.WithoutCancel(ctx), g.serial, g.serial.End(), true)
	g.console = &console{ReadCloser: rd, host: h, driver: d, vm: r.VM}
	return g.console, nil
}

// Write types into the guest, which echoes and answers each line with a prompt;
// the line "poweroff" powers it off.
func (c *console) Write(p []byte) (int, error) {
	h := c.host
	h.mu.Lock()
	g, ok := h.guests[c.vm]
	if !ok || g.console != c {
		h.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	off := c.typed(g, p)
	h.mu.Unlock()
	if off {
		h.PowerOff(c.vm)
	}
	return len(p), nil
}

// typed echoes and tells whether the guest was told to power off.
func (c *console) typed(g *guest, p []byte) (off bool) {
	for _, b := range p {
		if b != '\r' && b != '\n' {
			_, _ = g.serial.Write([]byte{b})
			if c.line.Len() < 256 {
				c.line.WriteByte(b)
			}
			continue
		}
		_, _ = g.serial.Write([]byte("\r\n"))
		off = off || c.line.String() == "poweroff"
		c.line.Reset()
		_, _ = g.serial.Write([]byte(prompt))
	}
	return off
}

// Close lets the next writer in.
func (c *console) Close() error {
	c.once.Do(func() {
		_ = c.ReadCloser.Close()
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		if g, ok := c.host.guests[c.vm]; ok && g.console == c {
			g.console = nil
		}
	})
	return nil
}
