package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// ticketLife is how long an agent may take to dial back.
const ticketLife = 2 * time.Minute

// tickets are promises of bulk streams: each opens one, once, for a while.
type tickets struct {
	clock clock.Clock
	mu    sync.Mutex
	open  map[string]ticket
}

type ticket struct {
	until time.Duration
	serve func(net.Conn)
}

func newTickets(c clock.Clock) *tickets { return &tickets{clock: c, open: map[string]ticket{}} }

// issue makes a ticket; serve runs with the connection it opens and owns it.
func (t *tickets) issue(serve func(net.Conn)) string {
	var b [32]byte
	rand.Read(b[:])
	name := hex.EncodeToString(b[:])
	now := t.clock.Boot()
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, v := range t.open {
		if v.until < now {
			delete(t.open, k)
		}
	}
	t.open[name] = ticket{now + ticketLife, serve}
	return name
}

// take spends a ticket.
func (t *tickets) take(name string) (func(net.Conn), bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.open[name]
	delete(t.open, name)
	return k.serve, ok && k.until >= t.clock.Boot()
}

// cancel takes a ticket back.
func (t *tickets) cancel(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, name)
}

// dialBack asks an agent to open a stream and waits for it. ask sends the
// command with the ticket.
func (t *tickets) dialBack(ctx context.Context, ask func(ticket string) error) (net.Conn, error) {
	conns, gone := make(chan net.Conn), make(chan struct{})
	defer close(gone)
	name := t.issue(func(c net.Conn) {
		select {
		case conns <- c:
		case <-gone:
			_ = c.Close() // nobody waits for it any more
		}
	})
	defer t.cancel(name)
	if err := ask(name); err != nil {
		return nil, err
	}
	select {
	case c := <-conns:
		return c, nil
	case <-ctx.Done():
		return nil, errs.New(errs.Timeout, "the node did not open the stream in time").Because(ctx.Err())
	}
}

// files is flows.Files: the content of images, by ticket.
type files struct {
	dir     *blob.Dir
	tickets *tickets
}

// Ticket implements flows.Files.
func (f files) Ticket(sum string) (string, error) {
	file, err := f.dir.Open(sum) // now, so that a missing file fails the step and not the stream
	if err != nil {
		return "", err
	}
	_ = file.Close()
	return f.tickets.issue(func(c net.Conn) {
		defer c.Close()
		file, err := f.dir.Open(sum)
		if err != nil {
			return
		}
		defer file.Close()
		_, _ = io.Copy(c, file) // the agent checks the hash of what arrived
	}), nil
}

// Read implements flows.Files.
func (f files) Read(ctx context.Context, ask func(ticket string) error) (io.ReadCloser, error) {
	return f.tickets.dialBack(ctx, ask)
}

// Remove implements flows.Files.
func (f files) Remove(sum string) error { return f.dir.Remove(sum) }
