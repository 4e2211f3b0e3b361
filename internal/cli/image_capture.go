package cli

import (
	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

func newImageCapture(a *app) *cobra.Command {
	var vm, disk string
	var w *waitFlags
	cmd := leaf("capture NAME", "Make an image of a disk of a stopped virtual machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		if vm == "" {
			return usage(cmd, "say whose disk it is: --vm NAME")
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		made, err := c.Images.Create(cmd.Context(), api.ImageCreate{Name: args[0], Type: "disk"})
		if err != nil {
			return err
		}
		ch, err := c.Images.Capture(cmd.Context(), made.ID, api.ImageCapture{VM: vm, Disk: disk})
		if err != nil {
			if code := client.CodeOf(err); code != client.CodeUnreachable && code != client.CodeInterrupted {
				_, _ = c.Images.Delete(cmd.Context(), made.ID) // it is empty
			}
			return err
		}
		return a.settle(cmd, c, "capture "+args[0], ch, w)
	})
	cmd.Long = `Make an image of a disk of a stopped virtual machine, which others are made from.

The disk is read as the guest sees it; the machine is held for as long, and stays as
it is.`
	cmd.Example = `  novacron image capture web-golden --vm web`
	cmd.Flags().StringVar(&vm, "vm", "", "the virtual machine's `name`")
	cmd.Flags().StringVar(&disk, "disk", "0", "the disk's `slot` or id")
	w = a.addWait(cmd)
	mustComplete(cmd.RegisterFlagCompletionFunc("vm", a.completeVMs))
	return cmd
}
