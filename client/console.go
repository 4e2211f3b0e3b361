package client

import (
	"context"
	"errors"
	"io"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
)

// Console is an open serial console.
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
	var conn *websocket.Conn
	// Attaching is safe: an attempt that broke off holds nothing.
	err := s.c.repeat(ctx, request{safe: true}, func(ctx context.Context) (err error) {
		conn, _, err = s.c.websocket(ctx, vmPath(vm)+"/console", nil) //nolint:bodyclose // the library closes it
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
