package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/clock"
)

func newVMLogs(a *app) *cobra.Command {
	var follow bool
	tail := -1
	cmd := leaf("logs NAME", "Print the guest's serial console", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		r, err := c.VMs.Logs(cmd.Context(), args[0], follow)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		out := a.out
		if isTerminal(out) {
			out = &output.Safe{W: out}
		}
		if tail >= 0 {
			return lastLines(cmd.Context(), a.clock, out, r, tail)
		}
		_, err = io.Copy(out, r)
		return err
	})
	cmd.Aliases = []string{"log"}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the guest writes")
	cmd.Flags().IntVar(&tail, "tail", -1, "begin with the last `lines` only")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// quiet is how long a stream says nothing when its past is through and only the
// present is to come.
const quiet = 300 * time.Millisecond

// lastLines copies r from its last n lines on. In a stream that is followed, the
// past ends where the first pause is.
func lastLines(ctx context.Context, clk clock.Clock, w io.Writer, r io.Reader, n int) error {
	chunks := make(chan []byte)
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { failed <- pump(ctx, r, chunks) }()
	var past []byte
	for {
		pause, stop := clk.After(quiet)
		if past == nil {
			pause = nil // nothing came yet
		}
		select {
		case chunk := <-chunks:
			past = keepLines(append(past, chunk...), n)
		case err := <-failed:
			stop()
			_, werr := w.Write(past)
			return errors.Join(err, werr)
		case <-pause:
			stop()
			return goOn(w, past, chunks, failed)
		}
		stop()
	}
}

func goOn(w io.Writer, past []byte, chunks <-chan []byte, failed <-chan error) error {
	if _, err := w.Write(past); err != nil {
		return err
	}
	for {
		select {
		case chunk := <-chunks:
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		case err := <-failed:
			return err
		}
	}
}

// pump reads until the end, which is no error.
func pump(ctx context.Context, r io.Reader, chunks chan<- []byte) error {
	for {
		buf := make([]byte, 16<<10)
		n, err := r.Read(buf)
		if n > 0 {
			select {
			case chunks <- buf[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// keepLines cuts b to its last n lines; a line without an end counts.
func keepLines(b []byte, n int) []byte {
	if n == 0 {
		return b[len(b):]
	}
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	for range n {
		i := bytes.LastIndexByte(b[:end], '\n')
		if i < 0 {
			return b
		}
		end = i
	}
	return b[end+1:]
}
