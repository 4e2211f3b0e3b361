package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Detach starts Up in a session of its own and returns once everything runs, or
// the reason why not. An instance that runs already is as good.
func Detach(ctx context.Context, o Options) (s Summary, already bool, err error) {
	if s, running, err := awaitOther(ctx, o); running || err != nil {
		return s, running, err
	}
	s, err = detach(ctx, o)
	if errors.Is(err, ErrRunning) { // someone was faster
		if s, running, other := awaitOther(ctx, o); running && other == nil {
			return s, true, nil
		}
	}
	return s, false, err
}

// awaitOther waits for an instance that someone else starts.
func awaitOther(ctx context.Context, o Options) (Summary, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		s, ready, running, err := Running(o.Paths)
		if err != nil || !running || ready {
			return s, running, err
		}
		if err := o.Clock.Sleep(ctx, 100*time.Millisecond); err != nil {
			e := errs.New(errs.Timeout, "the instance in %s is starting or stopping and does not get ready", o.Paths.Data)
			return s, true, e.Because(err)
		}
	}
}

func detach(ctx context.Context, o Options) (Summary, error) {
	if err := claimData(o.Paths); err != nil {
		return Summary{}, err
	}
	if err := os.MkdirAll(o.Paths.Logs(), 0o700); err != nil {
		return Summary{}, hostError(err, "the folder %s cannot be made", o.Paths.Logs())
	}
	out, err := openLog(o.Paths.log("up"))
	if err != nil {
		return Summary{}, err
	}
	defer func() { _ = out.Close() }()
	listen, told, err := os.Pipe()
	if err != nil {
		return Summary{}, hostError(err, "a pipe cannot be made")
	}
	defer func() { _ = listen.Close() }()
	cmd := exec.Command("/proc/self/exe", o.arguments()...) //nolint:gosec,noctx // this very program, which outlives us
	cmd.Args[0] = "novacron"
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.ExtraFiles = []*os.File{told}
	cmd.Env = append(os.Environ(), notifyEnv+"=3", DatabaseEnv+"="+o.Database, DatabaseOwnerEnv+"="+o.DatabaseOwner)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = told.Close()
	if err != nil {
		return Summary{}, errs.New(errs.HostFailure, "the instance cannot be started").Because(err)
	}
	return watchStart(ctx, o, cmd, listen)
}

// watchStart passes on what the detached process says until its start is over.
func watchStart(ctx context.Context, o Options, cmd *exec.Cmd, listen *os.File) (Summary, error) {
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var ready *Summary
	var failed error
	readMessages(listen, func(m Message) {
		switch {
		case m.Say != "":
			o.Say(m.Say)
		case m.Error != nil:
			failed = m.Error.err()
		case m.Ready != nil:
			ready = m.Ready
			_ = listen.Close() // nothing more is said
		}
	})
	if ready != nil {
		return *ready, cmd.Process.Release()
	}
	err := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return Summary{}, ctx.Err()
	case failed != nil:
		return Summary{}, failed
	default:
		e := errs.New(errs.HostFailure, "the instance ended while it started; the end of %s tells why", o.Paths.log("up"))
		return Summary{}, e.Because(err)
	}
}

// arguments say the same as the options.
func (o Options) arguments() []string {
	args := []string{
		"up", "--data-dir", o.Paths.Data, "--listen", o.Listen,
		"--nodes", strconv.Itoa(o.Nodes), "--sim", strconv.Itoa(o.Sim),
	}
	if len(o.Bridges) > 0 {
		args = append(args, "--bridges", strings.Join(o.Bridges, ","))
	}
	args = append(args, o.poolArgs()...)
	if o.Acceleration != "" {
		args = append(args, "--accel", o.Acceleration)
	}
	if o.LogLevel != "" {
		args = append(args, "--log-level", o.LogLevel)
	}
	if len(o.Advertise) > 0 {
		args = append(args, "--advertise", strings.Join(o.Advertise, ","))
	}
	return append(args, o.ServerArgs...)
}

// poolArgs say of which folders the nodes have.
func (o Options) poolArgs() (args []string) {
	for _, p := range o.Pools {
		args = append(args, "--pool", p)
	}
	return args
}

// String is what a person is told of a running instance.
func (s Summary) String() string {
	var b strings.Builder
	line := func(k, v string) {
		if v != "" {
			fmt.Fprintf(&b, "  %-13s %s\n", k, v)
		}
	}
	line("address", "https://"+s.Address)
	line("fingerprint", s.Fingerprint)
	line("setup token", s.SetupToken)
	line("data", s.DataDir)
	line("process", strconv.Itoa(s.PID))
	return b.String()
}
