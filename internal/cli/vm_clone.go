package cli

import (
	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
)

func newVMClone(a *app) *cobra.Command {
	var w *waitFlags
	var labels []string
	cmd := leaf("clone NAME NEW", "Make a virtual machine from a stopped one", names("NAME", "NEW"), func(cmd *cobra.Command, args []string) error {
		req := api.VMClone{Name: args[1]}
		set, unset, err := parseLabels(labels)
		if err != nil || len(unset) > 0 {
			return usage(cmd, "--label takes key=value")
		}
		if len(set) > 0 {
			req.Labels = &set
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		ch, err := c.VMs.Clone(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		return a.settle(cmd, c, "clone "+args[0]+" as "+args[1], ch, w)
	})
	cmd.Long = `Make a virtual machine from a stopped one: the same size, copies of its disks,
network interfaces with addresses of their own, on the same node. Ports of the
node are not forwarded to it.

What makes a guest unique, such as its host name, host keys and machine id, is
copied with its disks. cloud-init, if it is told anything, sees another instance
and sets the clone up under its own host name; otherwise change it there.`
	cmd.Example = "  novacron vm clone web web-2 --label tier=test --wait"
	cmd.Flags().StringArrayVar(&labels, "label", nil, "a label, `key=value`, instead of those of the original")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}
