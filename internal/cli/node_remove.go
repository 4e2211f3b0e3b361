package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newNodeRemove(a *app) *cobra.Command {
	var force, yes bool
	cmd := leaf("remove NAME", "Take a node out of the cluster for ever", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		done := "removed"
		if force {
			done, err = a.removeByForce(cmd, c, args[0], yes)
		} else {
			err = c.Nodes.Remove(cmd.Context(), args[0])
		}
		if err != nil {
			return err
		}
		if !a.printer().Format.ForPrograms() {
			fmt.Fprintf(a.out, "node %s: %s\n", args[0], done)
		}
		return nil
	})
	cmd.Long = `Take a node out of the cluster for ever. Its certificate is worth nothing from
then on. A node that has virtual machines is refused.

With --force, a node that is gone for good is removed with the virtual machines
on it. That states that its host is off and stays off: nothing else proves that
they run no more. They are lost with their disks, and can only be deleted. A node
that reports is refused.`
	cmd.Flags().BoolVar(&force, "force", false, "its host is off for good: remove it with its virtual machines")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "with --force: do not ask")
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}

// mostNamed virtual machines of those that are lost are named.
const mostNamed = 10

// removeByForce says what is lost, asks for the node's name, and removes the node
// as it was when that was said.
func (a *app) removeByForce(cmd *cobra.Command, c *client.Client, name string, yes bool) (done string, err error) {
	n, err := c.Nodes.Get(cmd.Context(), name)
	if err != nil {
		return "", err
	}
	vms, err := c.VMs.List(cmd.Context(), client.ListOptions{Limit: mostNamed, Filter: map[string]string{"node": n.Name}})
	if err != nil {
		return "", err
	}
	lost := lostLine(n.Status.VMs, vms.Items)
	if !yes {
		fmt.Fprintf(a.err, "To remove node %s by force states that its host is off and stays off.\n%s\n", output.Clean(n.Name), output.Clean(lost))
		if err := a.confirmName(cmd, n.Name); err != nil {
			return "", err
		}
	}
	return "removed; " + output.Clean(lost), c.Nodes.RemoveByForce(cmd.Context(), n.ID, n.Revision)
}

// lostLine says how many virtual machines go with a node, and names the first.
func lostLine(count int, first []api.VM) string {
	if count == 0 {
		return "no virtual machine is lost with it"
	}
	var named []string
	for _, v := range first {
		named = append(named, v.Name)
	}
	line := fmt.Sprintf("%d virtual machines are lost with their disks: %s", count, strings.Join(named, ", "))
	if count == 1 {
		line = "1 virtual machine is lost with its disks: " + strings.Join(named, ", ")
	}
	if more := count - len(named); more > 0 {
		line += fmt.Sprintf(" and %d more", more)
	}
	return line
}

// confirmName asks a person to type a name; a script says --yes.
func (a *app) confirmName(cmd *cobra.Command, name string) error {
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return usage(cmd, "this cannot be taken back: say --yes to do it")
	}
	fmt.Fprintf(a.err, "Type the name of the node to remove it: ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != name {
		return errs.New(errs.Cancelled, "that is not its name; nothing was removed")
	}
	return nil
}
