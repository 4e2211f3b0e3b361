package pglocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// StopSignal asks PostgreSQL to stop fast: clients are disconnected, data is
// flushed. (SIGTERM would wait for clients, SIGQUIT would not flush.)
const StopSignal = syscall.SIGINT

// Command gives the server as a command in the foreground, for a supervisor to
// start and to end with StopSignal. It inherits the lock; call Close once it
// has started.
func (c *Cluster) Command() *exec.Cmd {
	// its life is its supervisor's to end, by StopSignal and not by a kill
	postgres := filepath.Join(c.bin.Dir, "postgres")
	cmd := exec.CommandContext(context.Background(), postgres, c.opts.settings()...)
	c.opts.confine(cmd)
	cmd.ExtraFiles = []*os.File{c.lock}
	cmd.Stdout = io.Discard
	cmd.Stderr = io.MultiWriter(c.opts.Log, c.tail)
	return cmd
}

// process is a server started by Start.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs the server as a child that dies (fast stop) with this process.
func (c *Cluster) Start() error {
	p := &process{cmd: c.Command(), done: make(chan struct{})}
	p.cmd.SysProcAttr.Pdeathsig = StopSignal
	started := make(chan error, 1)
	go func() {
		// Pdeathsig follows the thread that forked, so that thread must live as
		// long as the child: it is locked here and waits.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return c.opts.explain("postgres", err.Error(), err)
	}
	c.proc = p
	return c.lock.Close()
}

// Exited is closed when a started server has ended.
func (c *Cluster) Exited() <-chan struct{} { return c.proc.done }

// Stop ends a started server with a fast stop and waits for it.
func (c *Cluster) Stop(ctx context.Context) error {
	if err := c.proc.cmd.Process.Signal(StopSignal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	select {
	case <-c.proc.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for PostgreSQL in %s to stop: %w", c.opts.Dir, ctx.Err())
	}
}

// Ready waits until the server takes connections and makes the roles and the
// database if they are missing.
func (c *Cluster) Ready(ctx context.Context) error {
	err := c.opts.Connect(ctx, func() error {
		if c.proc == nil {
			return nil
		}
		select {
		case <-c.proc.done:
			return c.opts.explain("postgres", c.tail.String(), c.proc.err)
		default:
			return nil
		}
	})
	if err != nil && ctx.Err() != nil {
		return c.opts.explain("postgres", c.tail.String(), err)
	}
	return err
}

// poll is how often a server that starts is tried.
const poll = 20 * time.Millisecond

// tail keeps the end of the server's log, to explain why it ended.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 8 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String gives what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " / ")
}
