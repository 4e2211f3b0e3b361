package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
)

func newVMCutover(a *app) *cobra.Command {
	var w *waitFlags
	var at string
	cmd := leaf("cutover NAME", "Have a warm migration come to its end", names("NAME"), func(cmd *cobra.Command, args []string) error {
		var req api.VMCutover
		if at != "" {
			when, err := time.Parse(time.RFC3339, at)
			if err != nil {
				return usage(cmd, "--at is a time such as 2026-12-01T02:00:00Z, and not %q", at)
			}
			req.At = &when
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		ch, err := c.VMs.Cutover(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		if ch.Job == nil || !a.waits(cmd, w) {
			return a.settle(cmd, c, "cut over "+args[0], ch, w)
		}
		return a.followMigration(cmd, c, ch.Job.ID, w.timeout)
	})
	cmd.Long = `Have the warm migration of a virtual machine come to its end: it is halted, the rest of its
disks and its memory are copied, and it goes on at its target where it was. Without --at that
is now, or as soon as its disks have been copied once. A time that was given before is replaced.`
	cmd.Example = `  novacron vm cutover db
  novacron vm cutover db --at 2026-12-01T02:00:00Z`
	cmd.Flags().StringVar(&at, "at", "", "halt it at this `time`, such as 2026-12-01T02:00:00Z; now by default")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}
