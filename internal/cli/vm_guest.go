package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newVMGuest(a *app) *cobra.Command {
	cmd := leaf("guest NAME", "What the guest of a virtual machine says of itself", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		g, err := c.VMs.Guest(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(g, guestPairs(g))
	})
	cmd.Long = `What the guest of a virtual machine says of itself: its network addresses, its file
systems, and how it uses its memory. qemu-guest-agent in the guest tells the former,
the driver of its memory balloon, which Linux has, the latter; all is as true as the
guest is honest.

The agent is absent where none is installed, or none has started yet. This asks the
guest now: 'vm show' and 'vm list -o wide' have the addresses that its node looked up
last, which are up to a minute old, or ten where they change often.`
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func guestPairs(g api.VMGuest) []output.Pair {
	pairs := []output.Pair{{Key: "agent", Value: strings.TrimSpace(g.Agent + " " + g.Version)}}
	if m := g.Memory; m != nil {
		pairs = append(pairs, output.Pair{Key: "memory", Value: memoryUse(*m)})
	}
	for _, i := range g.Interfaces {
		pairs = append(pairs, output.Pair{Key: i.Name, Value: strings.TrimSpace(i.MAC + " " + strings.Join(i.Addresses, ", "))})
	}
	for _, f := range g.FileSystems {
		pairs = append(pairs, output.Pair{Key: f.Path, Value: f.Type + fill(f)})
	}
	return pairs
}

// memoryUse tells what a guest says of its memory.
func memoryUse(m api.GuestMemory) string {
	parts := []string{size(m.TotalBytes)}
	for _, part := range []struct {
		n    api.Bytes
		what string
	}{{m.AvailableBytes, "available"}, {m.FreeBytes, "free"}, {m.CacheBytes, "in caches of files"}} {
		if part.n > 0 {
			parts = append(parts, size(part.n)+" "+part.what)
		}
	}
	return strings.Join(parts, ", ")
}

func fill(f api.GuestFileSystem) string {
	if f.TotalBytes <= 0 {
		return ""
	}
	return fmt.Sprintf(", %s of %s used (%d%%)", size(f.UsedBytes), size(f.TotalBytes), percent(f))
}

func percent(f api.GuestFileSystem) int64 {
	return int64(float64(f.UsedBytes) / float64(f.TotalBytes) * 100)
}

func newVMDf(a *app) *cobra.Command {
	cmd := leaf("df NAME", "How full the file systems of a guest are", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		g, err := c.VMs.Guest(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if g.Agent != "connected" {
			return errs.New(errs.GuestAgent, "the agent in the guest of %s is %s: it takes qemu-guest-agent there", args[0], g.Agent)
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(map[string]any{"items": g.FileSystems})
		}
		return output.List(a.printer(), g.FileSystems, []output.Column[api.GuestFileSystem]{
			{Title: "mounted on", Cell: func(f api.GuestFileSystem) string { return f.Path }},
			{Title: "type", Cell: func(f api.GuestFileSystem) string { return f.Type }},
			{Title: "size", Cell: func(f api.GuestFileSystem) string { return known(f, size(f.TotalBytes)) }},
			{Title: "used", Cell: func(f api.GuestFileSystem) string { return known(f, size(f.UsedBytes)) }},
			{Title: "full", Cell: full},
		})
	})
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func known(f api.GuestFileSystem, s string) string {
	if f.TotalBytes <= 0 {
		return ""
	}
	return s
}

func full(f api.GuestFileSystem) string {
	if f.TotalBytes <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", percent(f))
}

// guestExitError is how a program in a guest ended, as the end of this one.
type guestExitError struct{ code int }

// Error implements error.
func (e guestExitError) Error() string {
	return fmt.Sprintf("the program in the guest ended with exit code %d", e.code)
}

func newVMExec(a *app) *cobra.Command {
	var timeout int64
	var stdin bool
	cmd := leaf("exec NAME -- PROGRAM [ARGUMENT...]", "Run a program in the guest of a virtual machine", someNames, func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return usage(cmd, "no program is given: write it behind --")
		}
		req := api.VMExec{Command: args[1:], TimeoutSeconds: &timeout}
		if stdin {
			b, err := io.ReadAll(io.LimitReader(a.in, mostInput+1))
			if err != nil {
				return err
			}
			if len(b) > mostInput {
				return usage(cmd, "a program in a guest reads 64 KiB at most")
			}
			req.Input = b
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		r, err := c.VMs.Exec(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		return a.execEnded(r)
	})
	cmd.Long = `Run a program in the guest of a virtual machine, wait for its end, and end as it
did: what it writes, and its exit code, are those of this command. It takes
qemu-guest-agent in the guest, which runs it as whoever the agent is: root.

No shell looks at the command; name one where it takes one. That it was run is in
the audit log, with the program's name and without its arguments.`
	cmd.Example = `  novacron vm exec web -- uname -a
  novacron vm exec web -- sh -c 'df -h / | tail -1'
  novacron vm exec db --timeout 600 -- apt-get -y upgrade`
	cmd.Flags().Int64Var(&timeout, "timeout", 60, "`seconds` it may take, 600 at most; it goes on in the guest after that")
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "hand standard input to it, 64 KiB at most")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

const mostInput = 64 << 10

// execEnded writes what a program in a guest wrote.
func (a *app) execEnded(r api.VMExecResult) error {
	if p := a.printer(); p.Format.ForPrograms() {
		return p.Document(r)
	}
	for _, s := range []struct {
		to   io.Writer
		what []byte
	}{{a.out, r.Stdout}, {a.err, r.Stderr}} {
		if isTerminal(s.to) {
			s.to = &output.Safe{W: s.to}
		}
		if _, err := s.to.Write(s.what); err != nil {
			return err
		}
	}
	if r.Truncated {
		fmt.Fprintln(a.err, "novacron: the program wrote more than is handed on")
	}
	if r.ExitCode != 0 {
		return guestExitError{r.ExitCode}
	}
	return nil
}
