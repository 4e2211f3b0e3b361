package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newVMDisk(a *app) *cobra.Command {
	return group(a, "disk", "Disks of virtual machines", newDiskList(a), newDiskAdd(a), newDiskGrow(a), newDiskLimit(a), newDiskRemove(a))
}

// disk is a row of a VM's disks: its place in the guest belongs to it.
type disk struct {
	api.VMDisk
	guest string
}

func diskColumns() []output.Column[disk] {
	return []output.Column[disk]{
		{Title: "disk", Cell: func(d disk) string { return strconv.Itoa(d.Slot) }},
		{Title: "size", Cell: func(d disk) string { return size(d.SizeBytes) }},
		{Title: "image", Cell: func(d disk) string { return d.Image }},
		{Title: "pool", Wide: true, Cell: func(d disk) string { return d.Pool }},
		{Title: "limits", Wide: true, Cell: func(d disk) string { return diskLimits(d.Limits) }},
		{Title: "in guest", Cell: func(d disk) string { return d.guest }},
		{Title: "serial", Cell: func(d disk) string { return serial(d.ID) }},
		{Title: "id", Wide: true, Cell: func(d disk) string { return d.ID }},
	}
}

// serial is what the guest sees as the disk's serial number, as in
// /dev/disk/by-id/virtio-SERIAL.
func serial(id string) string {
	s := strings.ReplaceAll(id, "-", "")
	return s[max(0, len(s)-20):]
}

func newDiskList(a *app) *cobra.Command {
	cmd := leaf("list NAME", "List the disks of a virtual machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		v, err := c.VMs.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(map[string]any{"items": v.Spec.Disks})
		}
		var rows []disk
		for i, d := range v.Spec.Disks {
			rows = append(rows, disk{d, "vd" + string(rune('a'+i))})
		}
		return output.List(a.printer(), rows, diskColumns())
	})
	cmd.Aliases = []string{"ls"}
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func newDiskAdd(a *app) *cobra.Command {
	var w *waitFlags
	var d, image, pool string
	cmd := leaf("add NAME", "Add a disk to a stopped virtual machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		req := api.VMDiskCreate{Image: image, Pool: pool}
		if d == "" && image == "" {
			return usage(cmd, "--size is missing: how large is the disk?")
		}
		if d != "" {
			b, err := api.ParseBytes(d)
			if err != nil {
				return usage(cmd, "--size: %s", err)
			}
			req.SizeBytes = b
		}
		return a.changeDisk(cmd, w, "add a disk to "+args[0], func(c *client.Client) (client.Change, error) {
			return c.VMs.AddDisk(cmd.Context(), args[0], req)
		})
	})
	cmd.Example = `  novacron vm disk add db --size 100GiB --wait
  novacron vm disk add db --image dataset`
	cmd.Flags().StringVar(&d, "size", "", "`size` of the disk, such as 10GiB")
	cmd.Flags().StringVar(&image, "image", "", "make it from this disk `image`; its size, if none is given, is the image's")
	cmd.Flags().StringVar(&pool, "pool", "", "have it in this storage `pool`, which the node of the virtual machine must have")
	w = a.addWait(cmd)
	mustComplete(cmd.RegisterFlagCompletionFunc("pool", a.completePools))
	mustComplete(cmd.RegisterFlagCompletionFunc("image", a.completeImages))
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func newDiskGrow(a *app) *cobra.Command {
	var w *waitFlags
	var to string
	cmd := leaf("grow NAME DISK", "Make a disk larger; the virtual machine may run", names("NAME", "DISK"), func(cmd *cobra.Command, args []string) error {
		if to == "" {
			return usage(cmd, "--size is missing: how large shall the disk be?")
		}
		b, err := api.ParseBytes(to)
		if err != nil {
			return usage(cmd, "--size: %s", err)
		}
		return a.changeDisk(cmd, w, "grow disk "+args[1]+" of "+args[0], func(c *client.Client) (client.Change, error) {
			return c.VMs.GrowDisk(cmd.Context(), args[0], args[1], b)
		})
	})
	cmd.Long = `Make a disk larger; the virtual machine may run, and sees it at once.

DISK is what 'novacron vm disk list' shows, or an id. The partitions and file
systems on it grow by the guest's own tools. A disk never gets smaller.`
	cmd.Example = "  novacron vm disk grow db 1 --size 200GiB"
	cmd.Flags().StringVar(&to, "size", "", "its new `size`, such as 200GiB")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func newDiskRemove(a *app) *cobra.Command {
	var w *waitFlags
	var yes bool
	cmd := leaf("remove NAME DISK", "Remove a disk of a stopped virtual machine, and what is on it", names("NAME", "DISK"), func(cmd *cobra.Command, args []string) error {
		if !yes && !a.confirm(fmt.Sprintf("Remove disk %s of %s and all that is on it?", args[1], args[0])) {
			return errs.New(errs.Cancelled, "nothing was removed")
		}
		return a.changeDisk(cmd, w, "remove disk "+args[1]+" of "+args[0], func(c *client.Client) (client.Change, error) {
			return c.VMs.RemoveDisk(cmd.Context(), args[0], args[1])
		})
	})
	cmd.Aliases = []string{"rm"}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask (a script is never asked)")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func (a *app) changeDisk(cmd *cobra.Command, w *waitFlags, what string, change func(*client.Client) (client.Change, error)) error {
	c, err := a.connect(cmd)
	if err != nil {
		return err
	}
	ch, err := change(c)
	if err != nil {
		return err
	}
	return a.settle(cmd, c, what, ch, w)
}
