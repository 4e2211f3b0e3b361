package cli

import (
	"fmt"
	"iter"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newPool(a *app) *cobra.Command {
	cmd := group(a, "pool", "Storage pools: places for disks that several nodes have", newPoolList(a), newPoolShow(a), newPoolDelete(a))
	cmd.Aliases = []string{"pools"}
	return cmd
}

func usableOn(p api.StoragePool) string {
	n := 0
	for _, on := range p.Status.Nodes {
		if on.Usable {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, len(p.Status.Nodes))
}

func poolColumns() []output.Column[api.StoragePool] {
	return []output.Column[api.StoragePool]{
		{Title: "name", Cell: func(p api.StoragePool) string { return p.Name }},
		{Title: "type", Cell: func(p api.StoragePool) string { return p.Spec.Type }},
		{Title: "usable on", Cell: usableOn},
		{Title: "disks", Cell: func(p api.StoragePool) string { return strconv.Itoa(len(p.Status.Volumes)) }},
		{Title: "given away", Cell: func(p api.StoragePool) string { return size(p.Status.UsedBytes) }},
		{Title: "capacity", Cell: func(p api.StoragePool) string { return size(p.Status.CapacityBytes) }},
		{Title: "id", Wide: true, Cell: func(p api.StoragePool) string { return p.ID }},
	}
}

func newPoolList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List storage pools", names(), func(cmd *cobra.Command, _ []string) error {
		return showList(a, cmd, &l, func(c *client.Client, o client.ListOptions) iter.Seq2[api.StoragePool, error] {
			return c.StoragePools.All(cmd.Context(), o)
		}, poolColumns())
	})
	cmd.Aliases = []string{"ls"}
	l.add(cmd)
	return cmd
}

func newPoolShow(a *app) *cobra.Command {
	cmd := leaf("show NAME", "Show a storage pool, the nodes that have it and the disks in it", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		p, err := c.StoragePools.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(p, poolPairs(p))
	})
	cmd.ValidArgsFunction = a.completePools
	return cmd
}

func poolPairs(p api.StoragePool) []output.Pair {
	pairs := []output.Pair{
		{Key: "name", Value: p.Name},
		{Key: "id", Value: p.ID},
		{Key: "type", Value: p.Spec.Type},
		{Key: "capacity", Value: size(p.Status.CapacityBytes)},
		{Key: "given away", Value: size(p.Status.UsedBytes)},
	}
	for _, n := range p.Status.Nodes {
		is := "usable, " + size(n.FreeBytes) + " free"
		if !n.Usable {
			is = "not usable: it " + n.Reason
		}
		if n.Name != p.Name {
			is += " (its name there is " + n.Name + ")"
		}
		pairs = append(pairs, output.Pair{Key: "on " + n.Node, Value: is})
	}
	for _, v := range p.Status.Volumes {
		pairs = append(pairs, output.Pair{Key: fmt.Sprintf("disk %d of %s", v.Slot, v.VM), Value: size(v.SizeBytes)})
	}
	return pairs
}

func newPoolDelete(a *app) *cobra.Command {
	cmd := leaf("delete NAME", "Forget a storage pool that no disk is in and no node has", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if err := c.StoragePools.Delete(cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "storage pool %s: forgotten\n", output.Clean(args[0]))
		return nil
	})
	cmd.Aliases = []string{"rm"}
	cmd.Long = `Forget a storage pool that no disk is in and no node has any more. What is in its
folder stays there; a node that has it in its configuration reports it anew.`
	cmd.ValidArgsFunction = a.completePools
	return cmd
}
