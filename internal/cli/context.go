package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newContext(a *app) *cobra.Command {
	cmd := group(a, "context", "The clusters you work with", newContextList(a), newContextUse(a), newContextAdd(a))
	cmd.Aliases = []string{"contexts"}
	return cmd
}

func newContextList(a *app) *cobra.Command {
	cmd := leaf("list", "List contexts", names(), func(*cobra.Command, []string) error {
		all, err := a.loadContexts()
		if err != nil {
			return err
		}
		return output.List(a.printer(), all.Contexts, []output.Column[contextFile]{
			{Title: "name", Cell: func(c contextFile) string { return c.Name }},
			{Title: "current", Cell: func(c contextFile) string { return yes(c.Name == all.Current) }},
			{Title: "server", Cell: func(c contextFile) string { return c.Socket + strings.Join(c.Addresses, ", ") }},
			{Title: "fingerprint", Wide: true, Cell: func(c contextFile) string { return c.Fingerprint }},
		})
	})
	cmd.Aliases = []string{"ls"}
	return cmd
}

func newContextUse(a *app) *cobra.Command {
	cmd := leaf("use NAME", "Make a context the current one", names("NAME"), func(_ *cobra.Command, args []string) error {
		all, err := a.loadContexts()
		if err != nil {
			return err
		}
		if _, ok := all.find(args[0]); !ok {
			return errs.New(errs.NotFound, "there is no context %q", errs.Clip(args[0]))
		}
		all.Current = args[0]
		if err := a.saveContexts(all); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "commands now talk to %s\n", args[0])
		return nil
	})
	cmd.ValidArgsFunction = a.completeContexts
	return cmd
}

// addFlags describe a new context.
type addFlags struct{ fingerprint, token, setup string }

func newContextAdd(a *app) *cobra.Command {
	var f addFlags
	cmd := leaf("add NAME", "Remember a cluster and make it current", names("NAME"), func(cmd *cobra.Command, args []string) error {
		made, err := a.newContextFile(cmd, args[0], f)
		if err != nil {
			return err
		}
		all, err := a.loadContexts()
		if err != nil {
			return err
		}
		all.put(made)
		all.Current = made.Name
		if err := a.saveContexts(all); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "commands now talk to %s\n", made.Name)
		return nil
	})
	cmd.Long = `Remember a cluster, and make it the current one.

The server is asked before anything is written, so that a wrong address,
fingerprint or token is found now. A token given as "-" is read from standard
input, where no list of processes and no shell history shows it.`
	cmd.Example = `  novacron context add office --address cloud.example:8443 --fingerprint 4F:... --setup-token -
  novacron context add here --socket /run/novacron/server/api.sock`
	cmd.Flags().StringVar(&f.fingerprint, "fingerprint", "", "SHA-256 `fingerprint` of the server's or its cluster's certificate")
	cmd.Flags().StringVar(&f.token, "token", "", "API `token`, or - to read it")
	cmd.Flags().StringVar(&f.setup, "setup-token", "", "the one-time setup `token`, or - to read it: it makes you the first administrator")
	cmd.MarkFlagsMutuallyExclusive("token", "setup-token")
	return cmd
}

// newContextFile checks with the server what it is told.
func (a *app) newContextFile(cmd *cobra.Command, name string, f addFlags) (contextFile, error) {
	c := contextFile{Name: name, Socket: a.flags.socket, Fingerprint: f.fingerprint}
	if a.flags.address != "" {
		c.Addresses = strings.Split(a.flags.address, ",")
	}
	if (c.Socket == "") == (len(c.Addresses) == 0) {
		return c, usage(cmd, "say where the cluster is: --address HOST:PORT or --socket PATH")
	}
	token, err := a.secret(f.token + f.setup)
	if err != nil {
		return c, err
	}
	if f.setup != "" {
		setup, err := a.dial(c.config())
		if err != nil {
			return c, err
		}
		first, err := setup.Setup(cmd.Context(), api.Setup{SetupToken: token, Name: name})
		if err != nil {
			return c, err
		}
		token = first.Token
	}
	c.Token = token
	asker, err := a.dial(c.config())
	if err != nil {
		return c, err
	}
	_, err = asker.System(cmd.Context())
	return c, err
}

// secret takes a secret from the flag or, for "-", from standard input.
func (a *app) secret(flag string) (string, error) {
	if flag != "-" {
		return flag, nil
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 1<<16)).ReadString('\n')
	token := strings.TrimSpace(line)
	if token == "" {
		return "", errs.New(errs.InvalidField, "no token came on standard input").Because(err)
	}
	return token, nil
}
