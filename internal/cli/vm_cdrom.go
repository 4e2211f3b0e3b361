package cli

import (
	"github.com/spf13/cobra"

	"github.com/novacron/novacron/client"
)

func newVMCDROM(a *app) *cobra.Command {
	return group(a, "cdrom", "CDs in the drives of virtual machines", newCDROMAttach(a), newCDROMEject(a))
}

func newCDROMAttach(a *app) *cobra.Command {
	var w *waitFlags
	var replace, force bool
	cmd := leaf("attach NAME IMAGE", "Put a CD into the drive of a virtual machine; it may run", names("NAME", "IMAGE"), func(cmd *cobra.Command, args []string) error {
		if force && !replace {
			return usage(cmd, "--force is for what --replace takes out")
		}
		return a.changeDisk(cmd, w, "attach "+args[1]+" to "+args[0], func(c *client.Client) (client.Change, error) {
			if replace {
				return c.VMs.ReplaceCD(cmd.Context(), args[0], args[1], force)
			}
			return c.VMs.AttachCD(cmd.Context(), args[0], args[1])
		})
	})
	cmd.Long = `Put a CD, an image imported with --iso, into the drive of a virtual machine. A guest
that runs finds it at once, one that is paused when it is resumed, any other at its
next start. It stays until it is ejected. A drive that has another CD in it is left
alone, unless that is to be replaced; one that the guest has in use it keeps, unless
it is taken by force.

A machine that has run since before it had such a drive gets one when it is stopped
and started.`
	cmd.Example = `  novacron image import drivers --iso virtio-win.iso
  novacron vm cdrom attach db drivers --wait
  novacron vm cdrom attach db install-disc-2 --replace`
	cmd.Flags().BoolVar(&replace, "replace", false, "take out the CD that is in the drive")
	cmd.Flags().BoolVar(&force, "force", false, "with --replace, also one that the guest has in use")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func newCDROMEject(a *app) *cobra.Command {
	var w *waitFlags
	var force bool
	cmd := leaf("eject NAME", "Take the CD out of the drive of a virtual machine; it may run", names("NAME"), func(cmd *cobra.Command, args []string) error {
		return a.changeDisk(cmd, w, "eject the CD of "+args[0], func(c *client.Client) (client.Change, error) {
			return c.VMs.EjectCD(cmd.Context(), args[0], force)
		})
	})
	cmd.Long = `Take the CD out of the drive of a virtual machine. A guest that has it in use is
asked to give it back, and keeps it if it does not: unmount it there. One that is
paused cannot be asked. With --force its drive is opened all the same, and what reads the CD in the guest fails.`
	cmd.Example = `  novacron vm cdrom eject db --wait
  novacron vm cdrom eject db --force`
	cmd.Flags().BoolVar(&force, "force", false, "take a CD that the guest has in use")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}
