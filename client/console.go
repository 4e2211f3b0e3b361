package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
)

// Console is an open serial console, or an open screen.
type Console struct {
	ctx  context.Context
	end  context.CancelFunc
	conn *websocket.Conn
	rest []byte
}

var _ io.ReadWriteCloser = (*Console)(nil)

// Console attaches to the serial console of a VM until it is closed or ctx
// ends. Reading gives io.EOF when the guest is gone. One goroutine may read while
// another writes.
func (s VMs) Console(ctx context.Context, vm string) (*Console, error) {
	return s.attach(ctx, vmPath(vm)+"/console", nil)
}

// ConsoleView shows the serial console of a VM: what is kept of it, and what comes.
// What is written to it does not reach the guest, and any number may look on.
func (s VMs) ConsoleView(ctx context.Context, vm string) (*Console, error) {
	return s.attach(ctx, vmPath(vm)+"/console", url.Values{"view_only": {"true"}})
}

// Screen attaches to the screen of a VM: what is read and written is the VNC protocol
// (RFC 6143), without a password. One at a time may type; with viewOnly, keys,
// pointer and clipboard do not reach the guest, and others may be there, too.
func (s VMs) Screen(ctx context.Context, vm string, viewOnly bool) (*Console, error) {
	q := url.Values{}
	if viewOnly {
		q.Set("view_only", "true")
	}
	return s.attach(ctx, vmPath(vm)+"/vnc", q)
}

// Screenshot gives what is on the screen of a VM now, as PNG.
func (s VMs) Screenshot(ctx context.Context, vm string) ([]byte, error) {
	r, err := s.c.open(ctx, request{
		method: http.MethodGet, path: vmPath(vm) + "/screenshot", safe: true,
		header: http.Header{"Accept": {"image/png, application/problem+json"}},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

func (s VMs) attach(ctx context.Context, path string, q url.Values) (*Console, error) {
	var conn *websocket.Conn
	// Attaching is safe: an attempt that broke off holds nothing.
	err := s.c.repeat(ctx, request{safe: true}, func(ctx context.Context) (err error) {
		conn, _, err = s.c.websocket(ctx, path, q) //nolint:bodyclose // of an answer that became a WebSocket there is no body, and of others the library keeps a copy and closes it
		return err
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxEvent)
	life, end := context.WithCancel(ctx)
	go keepAlive(life, conn)
	return &Console{ctx: life, end: end, conn: conn}, nil
}

// ConsoleTicket makes what opens a VM's console once, within half a minute, for a
// program that cannot send a token with a WebSocket, such as a page.
func (s VMs) ConsoleTicket(ctx context.Context, vm string) (api.ConsoleTicket, error) {
	return post[api.ConsoleTicket](ctx, s.c, vmPath(vm)+"/console-tickets", nil, nil)
}

// Read implements io.Reader.
func (c *Console) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		_, data, err := c.conn.Read(c.ctx)
		if err != nil {
			if c.ctx.Err() != nil {
				return 0, io.EOF
			}
			return 0, closed(err)
		}
		c.rest = data
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// mostMessage is less than a server takes in one message.
const mostMessage = 32 << 10

// Write implements io.Writer.
func (c *Console) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+mostMessage)]
		if err := c.conn.Write(c.ctx, websocket.MessageBinary, part); err != nil {
			return n, closed(err)
		}
		n += len(part)
	}
	return n, nil
}

// Close lets go of the console.
func (c *Console) Close() error {
	err := c.conn.Close(websocket.StatusNormalClosure, "")
	c.end()
	if _, answered := errors.AsType[websocket.CloseError](err); answered {
		return nil
	}
	return err
}
