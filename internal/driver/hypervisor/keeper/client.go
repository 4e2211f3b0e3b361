package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// ErrBusy says that another writer is attached to the console.
var ErrBusy = errors.New("the console has a writer")

// dial connects to a keeper and asks for an operation.
func dial(ctx context.Context, socket string, q request) (*conn, answer, error) {
	var d net.Dialer
	plain, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, answer{}, err
	}
	c, ok := plain.(*net.UnixConn)
	if !ok {
		return nil, answer{}, fmt.Errorf("the keeper's socket is a %T", plain)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	a, r, err := ask(c, q)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, answer{}, fmt.Errorf("ask the keeper (%s): %w", q.Op, err)
	}
	return &conn{UnixConn: c, r: r}, a, nil
}

func ask(c net.Conn, q request) (answer, *bufio.Reader, error) {
	var a answer
	if err := json.NewEncoder(c).Encode(q); err != nil {
		return a, nil, err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return a, nil, err
	}
	return a, r, json.Unmarshal(line, &a)
}

// conn reads behind the answer's line.
type conn struct {
	*net.UnixConn
	r *bufio.Reader
}

// Read implements io.Reader.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// WriteTo hides the connection's own, which knows nothing of our buffer.
func (c *conn) WriteTo(w io.Writer) (int64, error) { return c.r.WriteTo(w) }

// Attach gives the console of a live guest: what it says from now on, and a way
// to type. ErrBusy while another writer has it.
func Attach(ctx context.Context, socket string) (io.ReadWriteCloser, error) {
	c, a, err := dial(ctx, socket, request{Op: opConsole})
	if err != nil {
		return nil, err
	}
	if a.Busy {
		_ = c.Close()
		return nil, ErrBusy
	}
	return &session{conn: c}, nil
}

// session is the writer's side of a console.
type session struct {
	*conn
	once sync.Once
}

// Close hangs up and returns once the keeper has freed the line for the next
// writer, or is too slow to wait for.
func (s *session) Close() error {
	s.once.Do(func() {
		if s.CloseWrite() == nil {
			_ = s.SetReadDeadline(clock.Deadline(farewell))
			_, _ = io.Copy(io.Discard, onlyReader{s.UnixConn})
		}
		_ = s.UnixConn.Close()
	})
	return nil
}

// AwaitExit returns when the keeper has written down how the hypervisor ended, or
// with an error when the keeper is gone, whether it has or not.
func AwaitExit(ctx context.Context, socket string) error {
	c, _, err := dial(ctx, socket, request{Op: opExit})
	if err != nil {
		return err
	}
	return c.Close()
}

// Log reads the console's log from its oldest kept byte. With follow it goes on
// while the keeper lives; otherwise it ends with what was said by now. The root
// is the VM's record folder, and stays the caller's.
func Log(ctx context.Context, root *os.Root, socket string, follow bool) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &logReader{ctx: ctx, cancel: cancel, root: root, socket: socket, follow: follow}
	if c, a, err := dial(ctx, socket, request{Op: opSync}); err == nil {
		l.until = a.End
		return l, c.Close()
	}
	// No keeper: all there will ever be is in the files.
	l.follow = false
	var err error
	if l.until, err = logEnd(root); err != nil {
		cancel()
		return nil, err
	}
	return l, nil
}

type logReader struct {
	ctx    context.Context
	cancel context.CancelFunc
	root   *os.Root
	socket string
	follow bool
	at     int64
	until  int64 // where the files end for a reader that does not follow
	live   *conn
}

// Read implements io.Reader.
func (l *logReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if l.ctx.Err() != nil {
			return 0, io.EOF
		}
		n, err := l.step(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// step reads from where the stream now comes from; 0 and nil mean "again".
func (l *logReader) step(p []byte) (int, error) {
	if l.live != nil {
		n, err := l.live.Read(p)
		l.at += int64(n)
		if err != nil { // ended, or fell behind; the files have what comes next
			_ = l.live.Close()
			l.live = nil
		}
		return n, nil
	}
	if !l.follow {
		if l.at >= l.until {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), l.until-l.at)]
	}
	n, next, err := readLog(l.root, l.at, p)
	l.at = next
	if errors.Is(err, io.EOF) && l.follow {
		return 0, l.goLive()
	}
	return n, err
}

func (l *logReader) goLive() error {
	c, a, err := dial(l.ctx, l.socket, request{Op: opFollow, From: l.at})
	if err != nil || a.Over {
		if err == nil {
			_ = c.Close()
			// Over means said, not yet written.
			if s, _, err := dial(l.ctx, l.socket, request{Op: opSync}); err == nil {
				_ = s.Close()
			}
		}
		l.follow = false
		l.until, err = logEnd(l.root)
		return err
	}
	if a.From > l.at {
		// the stream went on between the look at the files and this; they may have
		// meanwhile what the ring no longer has
		if end, err := logEnd(l.root); err == nil && end > l.at {
			return c.Close()
		}
	}
	l.live, l.at = c, a.From
	context.AfterFunc(l.ctx, func() { _ = c.Close() })
	return nil
}

// Close implements io.Closer.
func (l *logReader) Close() error {
	l.cancel()
	return nil
}
