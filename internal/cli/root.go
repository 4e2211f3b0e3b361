package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/output"
)

const rootLong = `NovaCron turns Linux machines into one private cloud.

  novacron up --detach                 run everything on this machine
  novacron vm list                     what runs
  novacron vm create web --image debian --memory 1GiB --start
  novacron vm console web              leave with Ctrl-]

Commands talk to the server named by --socket or --address, else by
NOVACRON_SOCKET or NOVACRON_ADDRESS, else by the current context (novacron
context list), else to the one that runs on this machine.`

func newRoot(a *app) *cobra.Command {
	root := group(a, "novacron", "One private cloud out of Linux machines",
		newVM(a), newImage(a), newNode(a), newPool(a), newJob(a), newMigration(a), newEvent(a), newAudit(a), newRecovery(a), newToken(a), newCA(a), newDB(a), newDebug(a),
		newGet(a), newApply(a), newDiff(a), newDelete(a), newExport(a),
		newStatus(a), newConfig(a), newDoctor(a), newDiscover(a), newSupport(a), newContext(a), newUp(a), newDown(a), newClean(a), newInstall(a), newUninstall(a), newServer(a), newAgent(a), newVersion(a), newExplain(a), newMan(a),
		newExitCodesTopic())
	root.Long = rootLong
	root.Version = a.version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetVersionTemplate("novacron {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, "%s", err.Error())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.flags.context, "context", "", "talk to the cluster of this `context`")
	f.StringVar(&a.flags.socket, "socket", "", "talk to the server behind this UNIX `socket`")
	f.StringVar(&a.flags.address, "address", "", "talk to the server at `host:port`")
	f.StringVarP(&a.flags.output, "output", "o", "table", "how to print: `table|wide|json|yaml`")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if _, ok := output.Parse(a.flags.output); !ok {
			return usage(cmd, "-o takes %s, not %q", strings.Join(output.Formats, ", "), a.flags.output)
		}
		return nil
	}
	mustComplete(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(root.RegisterFlagCompletionFunc("context", a.completeContexts))
	return root
}

// mustComplete stops on a completion for a flag that does not exist.
func mustComplete(err error) {
	if err != nil {
		panic(err)
	}
}

// group makes a command that only holds others: a noun. A word it does not know
// is answered with what was perhaps meant.
func group(_ *app, use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(verbs...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, word string) error {
	msg := fmt.Sprintf("%q is not a command of %s", word, cmd.CommandPath())
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage(cmd, "%s", msg)
}

// usageError says that the command line itself is wrong.
type usageError struct {
	msg  string
	help string
}

// Error implements error.
func (e *usageError) Error() string { return e.msg }

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...), help: cmd.CommandPath() + " --help"}
}

// names takes a fixed list of arguments, by what they are called.
func names(want ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(want):
			return usage(cmd, "%s is missing: %s %s", strings.Join(want[len(args):], " and "), cmd.CommandPath(), strings.Join(want, " "))
		case len(args) > len(want):
			return usage(cmd, "%q is too much: %s %s", args[len(want)], cmd.CommandPath(), strings.Join(want, " "))
		}
		return nil
	}
}

// someNames takes one name or more.
func someNames(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "NAME is missing: %s NAME...", cmd.CommandPath())
	}
	return nil
}
