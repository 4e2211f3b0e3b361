package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

func newNodeSet(a *app) *cobra.Command {
	var policy string
	cmd := leaf("set NAME", "Change what a node does when its host shuts down", names("NAME"), func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("shutdown-policy") {
			return usage(cmd, "nothing to change is given: --shutdown-policy")
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		n, err := c.Nodes.Patch(cmd.Context(), args[0], nil, api.NodePatch{ShutdownPolicy: &policy})
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(n)
		}
		fmt.Fprintf(a.out, "%s: at its host's shutdown: %s\n", output.Clean(n.Name), output.Clean(n.Spec.ShutdownPolicy))
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

Either way the node starts again with its host what ran.`
	cmd.Example = "  novacron node set node-1 --shutdown-policy leave"
	cmd.Flags().StringVar(&policy, "shutdown-policy", "stop", "`stop, suspend or leave`")
	mustComplete(cmd.RegisterFlagCompletionFunc("shutdown-policy", cobra.FixedCompletions([]string{"stop", "suspend", "leave"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}
