package qmp

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// Bounds of what a peer may send.
const (
	// MaxLine is the longest message. The longest known, the schema, has 200 KiB.
	MaxLine = 4 << 20
	// maxPerSecond is how many messages may come within a second.
	maxPerSecond = 20000
)

// ErrClosed is in the chain of every error after the connection has ended.
var ErrClosed = errors.New("the control connection is closed")

// Options configure a client.
type Options struct {
	// Clock counts floods; the system's when nil.
	Clock clock.Clock
	// OnEvent receives each event, in order, on the reading goroutine: it must not
	// block and not call Execute.
	OnEvent func(Event)
}

// Client is one connection to one hypervisor. It is safe for concurrent use.
type Client struct {
	conn net.Conn
	opt  Options
	done chan struct{}

	write sync.Mutex

	mu sync.Mutex
	// base is before the number of the first command, drawn by lot, and last the number of
	// the newest: answers to whoever was connected before are none to us. answered: was one of ours?
	base, last uint64
	answered   bool
	waiting    map[uint64]chan *message
	err        error
}

// numbers bounds the numbers that commands begin with: such as every reader of JSON keeps.
const numbers = 1 << 52

// lot draws a number to begin with.
func lot() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	return binary.LittleEndian.Uint64(b[:]) % numbers
}

// Dial connects to the socket at path and negotiates.
func Dial(ctx context.Context, path string, opt Options) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return New(ctx, conn, opt)
}

// New negotiates on a connection, which it owns from now on.
func New(ctx context.Context, conn net.Conn, opt Options) (*Client, error) {
	if opt.Clock == nil {
		opt.Clock = clock.System{}
	}
	if opt.OnEvent == nil {
		opt.OnEvent = func(Event) {}
	}
	c := &Client{conn: conn, opt: opt, done: make(chan struct{}), waiting: map[uint64]chan *message{}, base: lot()}
	c.last = c.base
	greeted := make(chan struct{})
	go c.read(greeted)
	select {
	case <-greeted:
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		c.fail(fmt.Errorf("no greeting: %w", ctx.Err()))
		return nil, c.Err()
	}
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		c.fail(err)
		return nil, err
	}
	return c, nil
}

// Done is closed when the connection has ended, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection ended; nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and with it every call under way.
func (c *Client) Close() error {
	c.fail(nil)
	return nil
}

// fail ends the connection once; the first reason stays.
func (c *Client) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = ErrClosed
	if cause != nil {
		c.err = fmt.Errorf("%w: %w", ErrClosed, cause)
	}
	close(c.done)
	_ = c.conn.Close()
}

// Execute runs a command and decodes what it returns into out, unless that is
// nil. A refusal is an *Error. When ctx ends first, the command may still happen.
func (c *Client) Execute(ctx context.Context, command string, args, out any) error {
	return c.execute(ctx, command, args, out, nil)
}

// SendFile gives the hypervisor an open file, which it knows by the name from then
// on (getfd). It has its own copy: the caller may close its.
func (c *Client) SendFile(ctx context.Context, name string, f *os.File) error {
	return c.execute(ctx, "getfd", map[string]string{"fdname": name}, nil, f)
}

// AddFile gives the hypervisor an open file, in a set of descriptors of its own that
// can be opened by name (add-fd), and tells the set's number. The opaque text comes
// back with query-fdsets. It has its own copy: the caller may close its.
func (c *Client) AddFile(ctx context.Context, opaque string, f *os.File) (set int, err error) {
	var out struct {
		Set int `json:"fdset-id"`
	}
	err = c.execute(ctx, "add-fd", map[string]string{"opaque": opaque}, &out, f)
	return out.Set, err
}

func (c *Client) execute(ctx context.Context, command string, args, out any, f *os.File) error {
	n, reply, err := c.register()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	defer c.forget(n)
	if err := c.send(ctx, n, command, args, f); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case m := <-reply:
		return decode(command, m, out)
	case <-c.done:
	case <-ctx.Done():
		return fmt.Errorf("%s: no answer: %w", command, ctx.Err())
	}
	select { // the answer may have come with the end
	case m := <-reply:
		return decode(command, m, out)
	default:
		return fmt.Errorf("%s: %w", command, c.Err())
	}
}

func decode(command string, m *message, out any) error {
	if m.Error != nil {
		return &Error{Command: command, Class: m.Error.Class, Desc: m.Error.Desc}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("%s: an answer of another form: %w", command, err)
	}
	return nil
}

func (c *Client) register() (uint64, chan *message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.last++
	ch := make(chan *message, 1)
	c.waiting[c.last] = ch
	return c.last, ch, nil
}

func (c *Client) forget(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, n)
}

// send writes one command. A peer that does not even read holds it until ctx ends.
// The line is everybody's: who gives up ends it only if half a command is on it, which
// cannot be taken back.
func (c *Client) send(ctx context.Context, n uint64, command string, args any, f *os.File) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, n})
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	line = append(line, '\n')
	sent, err := c.putUntil(ctx, line, f)
	switch {
	case sent == len(line), sent == 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return ctx.Err()
	default:
		c.fail(fmt.Errorf("a command could not be sent: %w", err))
		return c.Err()
	}
}

// putUntil is put that ctx ends.
func (c *Client) putUntil(ctx context.Context, line []byte, f *os.File) (int, error) {
	given := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(given)
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := c.put(line, f)
	if !stop() {
		<-given
		_ = c.conn.SetWriteDeadline(time.Time{}) // one that is closed is found so by whoever is next
	}
	return n, err
}

// put writes a line, hands a file along with its first byte, and tells how much went.
func (c *Client) put(line []byte, f *os.File) (int, error) {
	if f == nil {
		return c.conn.Write(line)
	}
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("a file goes over a UNIX socket only")
	}
	n, _, err := conn.WriteMsgUnix(line, unix.UnixRights(int(f.Fd())), nil)
	if err == nil && n < len(line) {
		var rest int
		rest, err = conn.Write(line[n:])
		n += rest
	}
	return n, err
}

// read delivers messages until the connection ends.
func (c *Client) read(greeted chan<- struct{}) {
	r := bufio.NewReaderSize(c.conn, 16<<10)
	flood := flood{clock: c.opt.Clock}
	for {
		line, err := readLine(r, MaxLine)
		if err == nil {
			err = flood.count()
		}
		var m *message
		if err == nil {
			m, err = parse(line)
		}
		if err == nil {
			err = c.deliver(m, &greeted)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the hypervisor ended it")
			}
			c.fail(err)
			return
		}
	}
}

func (c *Client) deliver(m *message, greeted *chan<- struct{}) error {
	switch {
	case *greeted != nil:
		if m.Greeting == nil {
			return errors.New("something else than a greeting came first")
		}
		close(*greeted)
		*greeted = nil
		return nil
	case m.Greeting != nil:
		return errors.New("a second greeting")
	case m.Event != nil:
		c.opt.OnEvent(m.event())
		return nil
	case m.ID == nil:
		return errors.New("an answer to no command")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case *m.ID > c.base && *m.ID <= c.last:
		c.answered = true
	case !c.answered:
		// To a command of who was connected before, and ended before it was answered: QEMU
		// answers it to who is there. It does so in the order of commands.
		return nil
	default:
		return fmt.Errorf("an answer to command %d, which was never sent", *m.ID)
	}
	if ch, ok := c.waiting[*m.ID]; ok {
		delete(c.waiting, *m.ID)
		ch <- m
	}
	return nil
}

// flood bounds the rate of messages.
type flood struct {
	clock clock.Clock
	since time.Duration
	n     int
}

func (f *flood) count() error {
	f.n++
	if f.n%1024 != 0 && f.n <= maxPerSecond {
		return nil
	}
	now := f.clock.Boot()
	if now-f.since >= time.Second {
		f.since, f.n = now, 0
		return nil
	}
	if f.n > maxPerSecond {
		return fmt.Errorf("a flood of more than %d messages in a second", maxPerSecond)
	}
	return nil
}
