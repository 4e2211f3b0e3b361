package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Back-off between starts of a child that dies: doubled from the first to the
// last, and forgotten after it has lived for a while.
const (
	restartFirst = 200 * time.Millisecond
	restartLast  = 10 * time.Second
	steady       = 2 * time.Second // a process that cannot start fails sooner
)

// spec is what a child is.
type spec struct {
	name string
	// command makes the process anew; after is called once it runs.
	command func(ctx context.Context) (cmd *exec.Cmd, after func(), err error)
	// signals stop it, the most polite first, each with the time it gets.
	signals []stopStep
	// orphan is what the kernel sends when the supervisor dies.
	orphan syscall.Signal
}

// stopStep is one way to ask a process to end.
type stopStep struct {
	signal syscall.Signal
	wait   time.Duration
}

// child keeps one process running.
type child struct {
	spec  spec
	clock clock.Clock
	log   *slog.Logger
	// changed is told whenever the process is another one.
	changed func(name string, id process.Identity)

	// messages of the start that is under way go here.
	messages chan Message
	done     chan struct{}

	mu       sync.Mutex
	proc     *os.Process
	stopping bool
	first    int // index of the first stop step to use
}

func newChild(s spec, clk clock.Clock, log *slog.Logger, changed func(string, process.Identity)) *child {
	return &child{
		spec: s, clock: clk, log: log.With("child", s.name), changed: changed,
		messages: make(chan Message, 16), done: make(chan struct{}),
	}
}

// run starts the process again and again until it is stopped.
func (c *child) run(ctx context.Context) {
	defer close(c.done)
	wait := restartFirst
	for ctx.Err() == nil && !c.isStopping() {
		began := c.clock.Boot()
		err := c.once(ctx)
		if c.isStopping() || ctx.Err() != nil {
			return
		}
		if c.clock.Boot()-began > steady {
			wait = restartFirst
		}
		c.log.Warn("a process ended and is started again", "err", err, "in", wait)
		if c.clock.Sleep(ctx, wait) != nil {
			return
		}
		wait = min(wait*2, restartLast)
	}
}

func (c *child) isStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// once runs the process until it ends.
func (c *child) once(ctx context.Context) error {
	cmd, after, err := c.spec.command(ctx)
	if err != nil {
		c.tell(err)
		return err
	}
	listen, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = listen.Close() }()
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", notifyEnv, 3+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, told)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A terminal's Ctrl-C is for the supervisor alone.
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = c.spec.orphan
	ended := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// The parent-death signal follows the thread that forked: it stays until the
		// child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.start(cmd)
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	err = <-started
	_ = told.Close()
	after()
	if err != nil {
		err = errs.New(errs.HostFailure, "%s cannot be started", c.spec.name).Because(err)
		c.tell(err)
		return err
	}
	c.note(cmd.Process.Pid)
	go readMessages(listen, c.pass)
	if err := <-ended; err != nil {
		return err
	}
	return errors.New("it ended by itself")
}

// start keeps a stop from coming between the fork and its record.
func (c *child) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return errors.New("it is being stopped")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.proc = cmd.Process
	return nil
}

func (c *child) note(pid int) {
	if id, err := process.Identify(pid); err == nil {
		c.changed(c.spec.name, id)
	}
}

// pass keeps the messages of a start; once nobody reads them any more, they are
// dropped.
func (c *child) pass(m Message) {
	select {
	case c.messages <- m:
	default:
	}
}

func (c *child) tell(err error) {
	e := errs.As(err)
	cause := ""
	if e.Unwrap() != nil {
		cause = e.Unwrap().Error()
	}
	c.pass(Message{Error: &MessageError{Code: e.Code, Message: e.Message, Cause: cause}})
}

// stop asks the process to end, ever less politely, and waits until it has.
// Tolerant of being called twice; hurry makes the politest way be left out.
func (c *child) stop(ctx context.Context) {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	for i := 0; i < len(c.spec.signals); i++ {
		i = max(i, c.firstStep())
		step := c.spec.signals[i]
		c.signal(step.signal)
		if c.endedWithin(ctx, step.wait, i) {
			return
		}
		c.log.Warn("a process does not end as asked", "signal", step.signal.String())
	}
	c.signal(syscall.SIGKILL)
	<-c.done
}

// endedWithin waits for the end, for the time of the step, or until haste asks for
// a later step.
func (c *child) endedWithin(ctx context.Context, d time.Duration, step int) bool {
	const look = 100 * time.Millisecond
	for until := c.clock.Boot() + d; c.clock.Boot() < until && c.firstStep() <= step; {
		tick, free := c.clock.After(look)
		select {
		case <-c.done:
			free()
			return true
		case <-tick:
		case <-ctx.Done():
			free()
			return false
		}
	}
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) firstStep() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(c.first, len(c.spec.signals)-1)
}

// hurry skips the politest way to stop.
func (c *child) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first++
}

func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc != nil {
		_ = c.proc.Signal(s) // one that has ended needs none
	}
}
