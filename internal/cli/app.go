package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// app is what every command works with.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	clock    clock.Clock
	version  string
	flags    globals
	// retryFor bounds how long a server that does not answer is asked.
	retryFor time.Duration
}

// globals are the flags every command takes.
type globals struct {
	context string
	socket  string
	address string
	output  string
}

// Main runs the program and gives its exit code.
func Main(args []string, version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, clock: clock.System{}, version: version, retryFor: retryFor}
	return a.run(ctx, args)
}

// run executes one command line.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && interrupted(err) {
		err = errInterrupted
	}
	a.report(cmd, err)
	return exitCode(err)
}

// printer prints to standard output as the flags say.
func (a *app) printer() output.Printer {
	f, _ := output.Parse(a.flags.output)
	return output.Printer{Out: a.out, Format: f, Colour: a.colour(a.out)}
}

// colour tells whether w is a terminal that wants colours (see no-color.org).
func (a *app) colour(w io.Writer) bool {
	return isTerminal(w) && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
}

// isTerminal tells whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// leaf makes a command that does something.
func leaf(use, short string, args cobra.PositionalArgs, run func(*cobra.Command, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: run, DisableFlagsInUseLine: true}
}
