package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
)

func newVMFreeze(a *app) *cobra.Command {
	length := 10 * time.Second
	cmd := leaf("freeze NAME", "Freeze the file systems of a guest for a moment", names("NAME"), func(cmd *cobra.Command, args []string) error {
		if length < time.Second || length > time.Minute || length%time.Second != 0 {
			return usage(cmd, "a guest is frozen for whole seconds, 1 to 60, and not for %v", length)
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		r, err := c.VMs.Freeze(cmd.Context(), args[0], int64(length/time.Second))
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(r)
		}
		fmt.Fprintf(a.out, "%d file systems of %s are frozen until %s\n", r.FileSystems, args[0], r.Until.UTC().Format(time.RFC3339))
		return nil
	})
	cmd.Long = `Freeze the file systems of a guest for a moment: what it has written is whole on its
disks, and whatever writes there waits. It takes qemu-guest-agent in the guest. The
VM's node thaws them after the time, also when nothing else of the cluster is there
any more; 'vm thaw' does before. Meanwhile the guest's agent answers nothing else.`
	cmd.Example = `  novacron vm freeze db --for 20s && take-a-snapshot; novacron vm thaw db`
	cmd.Flags().DurationVar(&length, "for", length, "thaw after this `time`, 60s at most")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func newVMThaw(a *app) *cobra.Command {
	cmd := leaf("thaw NAME", "Thaw the file systems of a guest", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if err := c.VMs.Thaw(cmd.Context(), args[0]); err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(api.VMThawed{})
		}
		fmt.Fprintf(a.out, "the file systems of %s are not frozen\n", args[0])
		return nil
	})
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// address is the first of a guest's, and how many more there are.
func address(s api.VMStatus) string {
	switch n := len(s.Addresses); n {
	case 0:
		return ""
	case 1:
		return s.Addresses[0]
	default:
		return fmt.Sprintf("%s +%d", s.Addresses[0], n-1)
	}
}

func frozen(f *api.VMFrozen) string {
	if f == nil {
		return ""
	}
	out := "its file systems, until " + f.Until.UTC().Format(time.RFC3339)
	if f.Reason != "" {
		out += ": " + f.Reason
	}
	return out
}
