package qga

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

const (
	// MaxReply bounds one answer, in bytes, and what may come before it.
	MaxReply = 4 << 20
	// mostStale bounds the answers to others that are passed over.
	mostStale = 64
	// sentinel begins what is sent and answers to guest-sync-delimited: it is in no text
	// of JSON.
	sentinel = 0xFF
)

// ErrSilent says that nobody answered in time, or that what did is no agent.
var ErrSilent = errors.New("the guest's agent does not answer")

// Error is a refusal by the agent.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// Error implements error.
func (e *Error) Error() string { return e.Desc + " (" + e.Class + ")" }

// Client is one conversation. It is for one goroutine at a time.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
	once sync.Once
}

// New begins a conversation: it returns once the agent has answered, or with ErrSilent
// when ctx ends before. The connection is the client's from then on.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	if err := c.sync(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the conversation.
func (c *Client) Close() (err error) {
	c.once.Do(func() { err = c.conn.Close() })
	return err
}

// sync finds the place from which on answers are ours.
func (c *Client) sync(ctx context.Context) error {
	defer c.bound(ctx)()
	n := rand.Int64N(1 << 52) //nolint:gosec // it tells our answer from older ones, and is no secret
	// the first byte has the agent forget half a request of somebody before us
	if err := c.send("guest-sync-delimited", map[string]int64{"id": n}, sentinel); err != nil {
		return errors.Join(ErrSilent, err)
	}
	// answers to those who gave up before us may come first: none of them is ours
	for range mostStale {
		if err := c.skip(); err != nil {
			return errors.Join(ErrSilent, err)
		}
		var got int64
		if err := c.answer(&got); err != nil {
			return errors.Join(ErrSilent, err)
		}
		if got == n {
			return nil
		}
	}
	return fmt.Errorf("%w: it answers something else", ErrSilent)
}

// skip reads to the sentinel.
func (c *Client) skip() error {
	for range MaxReply {
		b, err := c.in.ReadByte()
		if err != nil {
			return err
		}
		if b == sentinel {
			return nil
		}
	}
	return errors.New("it floods")
}

// Call asks for something and reads the answer into out, unless that is nil. A refusal
// is an *Error. After any other error, the conversation is over.
func (c *Client) Call(ctx context.Context, name string, args, out any) error {
	defer c.bound(ctx)()
	err := c.send(name, args)
	if err == nil {
		err = c.answer(out)
	}
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused
	}
	if err != nil {
		_ = c.Close()
		return fmt.Errorf("%s: %w", name, errors.Join(ErrSilent, err))
	}
	return nil
}

// bound closes the connection when ctx ends, until what it gives is called.
func (c *Client) bound(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return func() { stop() }
}

func (c *Client) send(name string, args any, before ...byte) error {
	request := map[string]any{"execute": name}
	if args != nil {
		request["arguments"] = args
	}
	b, err := json.Marshal(request)
	if err == nil {
		_, err = c.conn.Write(append(append(before, b...), '\n'))
	}
	return err
}

// answer reads one line.
func (c *Client) answer(out any) error {
	line, err := c.line()
	if err != nil {
		return err
	}
	var reply struct {
		Return json.RawMessage `json:"return"`
		Error  *Error          `json:"error"`
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return fmt.Errorf("its answer is not understood: %w", err)
	}
	switch {
	case reply.Error != nil:
		return reply.Error
	case reply.Return == nil:
		return errors.New("its answer is none")
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(reply.Return, out); err != nil {
		return fmt.Errorf("its answer is not understood: %w", err)
	}
	return nil
}

// line reads to the end of a line, of bounded length.
func (c *Client) line() ([]byte, error) {
	var out []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(out)+len(part) > MaxReply {
			return nil, errors.New("its answer is too long")
		}
		out = append(out, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return out, err
	}
}
