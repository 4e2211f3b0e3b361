package local

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Up runs the instance until ctx ends or a start fails. hurry, which may be nil,
// is received from each time the person asks again while it stops; something in
// it when ctx ends leaves the guests alone from the beginning.
func Up(ctx context.Context, o Options, hurry <-chan os.Signal) error {
	if err := o.check(); err != nil {
		return err
	}
	owner, err := o.owner()
	if err != nil {
		return err
	}
	if err := claimData(o.Paths); err != nil {
		return err
	}
	lock, err := takeLock(o.Paths)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	defer o.Paths.removeEmpty()
	if err := makeDirs(o.Paths, owner); err != nil {
		return err
	}
	s := &supervisor{o: o, owner: owner, log: o.Log, state: state{Children: map[string]process.Identity{}}}
	s.postgresLog = sync.OnceValues(func() (*os.File, error) { return openLog(o.Paths.log(postgresName)) })
	if err := s.endLeftovers(ctx); err != nil {
		return err
	}
	if s.listen, err = claimPort(ctx, o.Paths, o.Listen); err != nil {
		return err
	}
	defer func() { _ = os.Remove(o.Paths.state()) }()
	return s.run(ctx, hurry)
}

// supervisor is a running up.
type supervisor struct {
	o      Options
	owner  *pglocal.Owner
	log    *slog.Logger
	listen string
	// postgresLog is opened once: what PostgreSQL says is copied to it.
	postgresLog func() (*os.File, error)

	postgres, server *child
	agents           []*child
	wg               sync.WaitGroup

	mu    sync.Mutex
	state state
}

// startTimeout bounds each part of a start.
const startTimeout = 2 * time.Minute

func (s *supervisor) run(ctx context.Context, hurry <-chan os.Signal) error {
	// Children outlive ctx by the time it takes to stop them in order.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s.wg.Go(func() { boundLogs(life, s.o.Clock, s.o.Paths.Logs()) })
	summary, err := s.start(ctx, life)
	if err == nil {
		s.o.Ready(summary)
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		err = nil // being asked to stop is no failure
	}
	s.stop(life, hurry)
	end()
	s.wg.Wait()
	return err
}

// start brings everything up, in order.
func (s *supervisor) start(ctx, life context.Context) (Summary, error) {
	var err error
	if s.state.Up, err = process.Identify(os.Getpid()); err != nil {
		return Summary{}, errs.New(errs.HostFailure, "/proc does not tell about this process").Because(err)
	}
	s.save()
	if s.o.Database == "" {
		if err := s.startPostgres(ctx, life); err != nil {
			return Summary{}, err
		}
	}
	s.say("starting the server")
	s.server = s.launch(life, s.serverSpec())
	summary, err := s.awaitReady(ctx, s.server)
	if err != nil {
		return Summary{}, err
	}
	if err := s.startAgents(ctx, life); err != nil {
		return Summary{}, err
	}
	summary.PID, summary.DataDir, summary.Socket = os.Getpid(), s.o.Paths.Data, s.o.Paths.Socket()
	summary.Nodes, summary.Sim = s.o.Nodes, s.o.Sim
	s.mu.Lock()
	s.state.Ready, s.state.Summary = true, summary
	s.state.Summary.SetupToken = "" // a secret does not lie about in a file
	s.mu.Unlock()
	s.save()
	return summary, nil
}

func (s *supervisor) say(what string) { s.o.Say(what) }

// launch starts a child and keeps it running.
func (s *supervisor) launch(life context.Context, sp spec) *child {
	c := newChild(sp, s.o.Clock, s.log, s.changed)
	s.wg.Go(func() { c.run(life) })
	return c
}

// changed writes down which processes are ours, for an up that comes after a
// crash of this one.
func (s *supervisor) changed(name string, id process.Identity) {
	s.mu.Lock()
	s.state.Children[name] = id
	s.mu.Unlock()
	s.save()
}

func (s *supervisor) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state.write(s.o.Paths); err != nil {
		s.log.Warn("the state of the instance cannot be written", "err", err)
	}
}

// awaitReady waits for a child's word. What may pass is left to the restarts; any
// other error ends the start.
func (s *supervisor) awaitReady(ctx context.Context, c *child) (Summary, error) {
	late, free := s.o.Clock.After(startTimeout)
	defer free()
	var last error
	for {
		select {
		case m := <-c.messages:
			switch {
			case m.Ready != nil:
				return *m.Ready, nil
			case m.Error != nil:
				last = m.Error.err()
				if !m.Error.Code.Retryable() || m.Error.Code == errs.NoSpace {
					return Summary{}, last
				}
			}
		case <-late:
			e := errs.New(errs.Timeout, "%s was not ready within %s; its log is %s", c.spec.name, startTimeout, s.o.Paths.log(c.spec.name))
			return Summary{}, e.Because(last)
		case <-ctx.Done():
			return Summary{}, ctx.Err()
		}
	}
}

// stop ends everything in order: what uses something ends before it.
func (s *supervisor) stop(life context.Context, hurry <-chan os.Signal) {
	s.mu.Lock()
	s.state.Ready = false // whoever wants it up waits, and starts it anew
	s.mu.Unlock()
	s.save()
	leave := func() {
		s.say("leaving the virtual machines as they are")
		for _, a := range s.agents {
			a.hurry()
		}
	}
	gone := make(chan struct{})
	defer close(gone)
	select {
	case <-hurry: // from the beginning: no guest is to be asked anything
		leave()
	default:
		if len(s.agents) > 0 {
			s.say("stopping the nodes and their virtual machines")
		}
	}
	go func() {
		for {
			select {
			case <-hurry:
				leave()
			case <-gone:
				return
			}
		}
	}()
	var agents sync.WaitGroup
	for _, a := range s.agents {
		agents.Go(func() { a.stop(life) })
	}
	agents.Wait()
	for _, c := range []*child{s.server, s.postgres} {
		if c != nil {
			s.say("stopping " + c.spec.name)
			c.stop(life)
		}
	}
}

// leftoverGrace is how long a child of an up that was killed may take to end.
const leftoverGrace = 20 * time.Second

// endLeftovers ends the children of an up that was killed: the lock says that
// nobody supervises them. Guests are not among them.
func (s *supervisor) endLeftovers(ctx context.Context) error {
	old, ok := readState(s.o.Paths)
	if !ok {
		return nil
	}
	for name, id := range old.Children {
		h, err := process.Open(id)
		if errors.Is(err, process.ErrGone) {
			continue
		}
		if err != nil {
			return errs.New(errs.HostFailure, "%s of an earlier run cannot be looked at", name).Because(err)
		}
		s.say("ending " + name + " of an earlier run")
		signal := syscall.SIGTERM
		if name == postgresName {
			signal = pglocal.StopSignal
		}
		s.endLeftover(ctx, h, signal)
		_ = h.Close()
	}
	joins, err := filepath.Glob(s.o.Paths.joinFile("*"))
	for _, f := range joins {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

func (s *supervisor) endLeftover(ctx context.Context, h *process.Handle, signal syscall.Signal) {
	_ = h.Signal(signal) // one that is gone needs none
	late, free := s.o.Clock.After(leftoverGrace)
	defer free()
	select {
	case <-h.Ended():
	case <-late:
		_ = h.Signal(syscall.SIGKILL)
		<-h.Ended()
	case <-ctx.Done():
	}
}

// local is a client of the server of this instance.
func (s *supervisor) local() (*client.Client, error) {
	return client.New(client.Config{Socket: s.o.Paths.Socket(), UserAgent: "novacron-up"})
}
