package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

func newNodeSet(a *app) *cobra.Command {
	var policy string
	var out, in int
	cmd := leaf("set NAME", "Change what a node does when its host shuts down, and how many machines move at once", names("NAME"), func(cmd *cobra.Command, args []string) error {
		var patch api.NodePatch
		given := cmd.Flags().Changed
		if given("shutdown-policy") {
			patch.ShutdownPolicy = &policy
		}
		if given("migrations-out") {
			patch.MigrationsOut = &out
		}
		if given("migrations-in") {
			patch.MigrationsIn = &in
		}
		if patch == (api.NodePatch{}) {
			return usage(cmd, "nothing to change is given: --shutdown-policy, --migrations-out or --migrations-in")
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		n, err := c.Nodes.Patch(cmd.Context(), args[0], nil, patch)
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(n)
		}
		fmt.Fprintf(a.out, "%s: at its host's shutdown: %s; at once %d machines move away and %d here\n",
			output.Clean(n.Name), output.Clean(n.Spec.ShutdownPolicy), n.Spec.MigrationsOut, n.Spec.MigrationsIn)
		return nil
	})
	cmd.Long = `Change what a node does with its guests when its host shuts down in order, or
'novacron down' stops it:

  stop     ask each guest to shut down, and power off what has not after 20
           seconds
  suspend  save their memory to disk, from which they go on when the node starts
           again; what cannot be suspended is stopped
  leave    do nothing: they go on where the host goes on, and end with it, as by
           a loss of power, where it does not

Either way the node starts again with its host what ran.

Of virtual machines that are to move, so many move away from it, and here, at once;
the others wait for their turn, by their priority and their age.`
	cmd.Example = `  novacron node set node-1 --shutdown-policy leave
  novacron node set node-1 --migrations-in 4`
	f := cmd.Flags()
	f.StringVar(&policy, "shutdown-policy", "stop", "`stop, suspend or leave`")
	f.IntVar(&out, "migrations-out", 2, "so many machines move away at once, a `number` from 1 to 100")
	f.IntVar(&in, "migrations-in", 2, "so many machines move here at once, a `number` from 1 to 100")
	mustComplete(cmd.RegisterFlagCompletionFunc("shutdown-policy", cobra.FixedCompletions([]string{"stop", "suspend", "leave"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}
