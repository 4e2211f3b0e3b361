package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func newNodeSet(a *app) *cobra.Command {
	var policy, bandwidth string
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
		if given("migration-bandwidth") {
			n, err := unit.ParseBytes(bandwidth)
			if err != nil {
				return usage(cmd, "--migration-bandwidth: %v", err)
			}
			patch.MigrationBytesPerSecond = (*api.Bytes)(&n)
		}
		if patch == (api.NodePatch{}) {
			return usage(cmd, "nothing to change is given: --shutdown-policy, --migrations-out, --migrations-in or --migration-bandwidth")
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
		fmt.Fprintf(a.out, "%s: at its host's shutdown: %s; at once %s\n", output.Clean(n.Name), output.Clean(n.Spec.ShutdownPolicy), movesAtOnce(n.Spec))
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
the others wait for their turn, by their priority and their age. Those that move,
either way, share --migration-bandwidth fairly, if it is given; what one cannot use
goes to the others, and a change counts for those that are under way.`
	cmd.Example = `  novacron node set node-1 --shutdown-policy leave
  novacron node set node-1 --migrations-in 4
  novacron node set node-1 --migration-bandwidth 400MiB`
	f := cmd.Flags()
	f.StringVar(&policy, "shutdown-policy", "stop", "`stop, suspend or leave`")
	f.IntVar(&out, "migrations-out", 2, "so many machines move away at once, a `number` from 1 to 100")
	f.IntVar(&in, "migrations-in", 2, "so many machines move here at once, a `number` from 1 to 100")
	f.StringVar(&bandwidth, "migration-bandwidth", "", "all machines that move away and here get no more than this `size` per second together, such as 400MiB; 0 for no limit")
	mustComplete(cmd.RegisterFlagCompletionFunc("shutdown-policy", cobra.FixedCompletions([]string{"stop", "suspend", "leave"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}

// movesAtOnce says how many machines move, and what they get.
func movesAtOnce(s api.NodeSpec) string {
	out := fmt.Sprintf("%d machines move away and %d here", s.MigrationsOut, s.MigrationsIn)
	if s.MigrationBytesPerSecond > 0 {
		out += fmt.Sprintf(", with %s/s for all of them", unit.FormatBytes(int64(s.MigrationBytesPerSecond)))
	}
	return out
}
