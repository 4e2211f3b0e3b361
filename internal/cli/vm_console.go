package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// leaveByte is Ctrl-], as telnet and virsh have it.
const leaveByte = 0x1d

func newVMConsole(a *app) *cobra.Command {
	var timeout time.Duration
	var ticket, viewOnly bool
	cmd := leaf("console NAME", "Attach to the serial console", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if ticket {
			return a.consoleTicket(cmd.Context(), c, args[0])
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		open := c.VMs.Console
		if viewOnly {
			open = c.VMs.ConsoleView
		}
		con, err := open(ctx, args[0])
		if err != nil {
			return err
		}
		restore, err := a.raw()
		if err != nil {
			_ = con.Close()
			return err
		}
		defer restore()
		fmt.Fprintf(a.err, "connected to the console of %s; leave with Ctrl-]\r\n", args[0])
		err = a.attach(ctx, con, timeout)
		restore()
		fmt.Fprintln(a.err)
		return err
	})
	cmd.Long = `Attach to the serial console of a virtual machine.

On a terminal every key goes to the guest, Ctrl-C too; Ctrl-] leaves. Standard
input may be a pipe: its end does not end the console, so that the answer is
still seen; a Ctrl-] byte or --timeout does. One at a time may type; with
--view-only any number look on.`
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "leave after this `duration`")
	cmd.Flags().BoolVar(&viewOnly, "view-only", false, "look on: keys do not reach the guest, and others may be there, too")
	cmd.Flags().BoolVar(&ticket, "ticket", false, "print a ticket for another program instead: it opens this console once, within 30 seconds")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// consoleTicket prints what opens a console once.
func (a *app) consoleTicket(ctx context.Context, c *client.Client, vm string) error {
	t, err := c.VMs.ConsoleTicket(ctx, vm)
	if err != nil {
		return err
	}
	p := a.printer()
	return p.Describe(t, []output.Pair{
		{Key: "ticket", Value: t.Ticket}, {Key: "expires", Value: t.ExpiresAt.UTC().Format(time.RFC3339)}, {Key: "protocols", Value: strings.Join(t.Protocols, ", ")},
	})
}

// raw hands every key on, if standard input is a terminal. What it returns puts
// the terminal back; doing that twice is no harm.
func (a *app) raw() (restore func(), err error) {
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the terminal cannot be put into raw mode").Because(err)
	}
	return func() { _ = term.Restore(int(f.Fd()), old) }, nil
}

// attach copies both ways until the guest goes, Ctrl-] comes, time is up or ctx
// ends. Whoever reads standard input may stay behind in it: the program ends next.
func (a *app) attach(ctx context.Context, con io.ReadWriteCloser, timeout time.Duration) error {
	ended := make(chan error, 2)
	var shown sync.WaitGroup
	shown.Go(func() {
		_, err := io.Copy(a.out, con)
		ended <- err
	})
	go func() {
		if left, err := typed(a.in, con); left || err != nil {
			ended <- err
		}
	}()
	defer shown.Wait() // nothing is printed once the terminal is a shell's again
	defer func() { _ = con.Close() }()
	var late <-chan time.Time
	if timeout > 0 {
		ch, stop := a.clock.After(timeout)
		defer stop()
		late = ch
	}
	select {
	case err := <-ended:
		return err
	case <-late:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errInput is a standard input that cannot be read.
var errInput = errors.New("standard input cannot be read")

// typed sends what is typed until Ctrl-], which it reports, or the end.
func typed(in io.Reader, guest io.Writer) (left bool, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		chunk := buf[:n]
		if i := bytes.IndexByte(chunk, leaveByte); i >= 0 {
			chunk, left = chunk[:i], true
		}
		if len(chunk) > 0 {
			if _, err := guest.Write(chunk); err != nil {
				return left, err
			}
		}
		switch {
		case left, errors.Is(err, io.EOF):
			return left, nil
		case err != nil:
			return false, errors.Join(errInput, err)
		}
	}
}
