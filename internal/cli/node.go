package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newNode(a *app) *cobra.Command {
	cmd := group(a, "node", "The hosts virtual machines run on",
		newNodeList(a), newNodeShow(a), newNodeToken(a),
		newNodeAction(a, "cordon", "Keep new virtual machines off a node", client.Nodes.Cordon),
		newNodeAction(a, "uncordon", "Give a node new virtual machines again", client.Nodes.Uncordon),
		newNodeDrain(a), newNodeReturn(a),
		newNodeAction(a, "release", "End the quarantine of a node that did what no agent does", client.Nodes.Release),
		newNodeSet(a), newNodeRemove(a))
	cmd.Aliases = []string{"nodes"}
	return cmd
}

func (a *app) nodeColumns() []output.Column[api.Node] {
	now := a.clock.Now()
	return []output.Column[api.Node]{
		{Title: "name", Cell: func(n api.Node) string { return n.Name }},
		{Title: "state", State: true, Cell: func(n api.Node) string { return n.Status.State }},
		{Title: "vms", Cell: func(n api.Node) string { return strconv.Itoa(n.Status.VMs) }},
		{Title: "cpus", Cell: func(n api.Node) string {
			return output.Share(strconv.Itoa(n.Status.Used.CPUs), strconv.Itoa(n.Status.Capacity.CPUs))
		}},
		{Title: "memory", Cell: func(n api.Node) string { return share(n.Status.Used.MemoryBytes, n.Status.Capacity.MemoryBytes) }},
		{Title: "disk", Cell: func(n api.Node) string { return share(n.Status.Used.DiskBytes, n.Status.Capacity.DiskBytes) }},
		{Title: "acceleration", Cell: func(n api.Node) string { return n.Status.Inventory.Acceleration }},
		{Title: "seen", Cell: func(n api.Node) string { return output.Age(now, n.Status.SeenAt) }},
		{Title: "hypervisor", Wide: true, Cell: func(n api.Node) string {
			return strings.TrimSpace(n.Status.Inventory.Hypervisor + " " + n.Status.Inventory.HypervisorVersion)
		}},
		{Title: "agent", Wide: true, Cell: func(n api.Node) string { return n.Status.AgentVersion }},
		{Title: "reason", Wide: true, Cell: func(n api.Node) string { return n.Status.Reason }},
		{Title: "id", Wide: true, Cell: func(n api.Node) string { return n.ID }},
	}
}

func share(used, whole api.Bytes) string {
	u := size(used)
	if u == "" {
		u = "0"
	}
	return output.Share(u, size(whole))
}

func newNodeList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List nodes", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		o, err := l.options(cmd)
		if err != nil {
			return err
		}
		items, err := client.Collect(c.Nodes.All(cmd.Context(), o))
		if err != nil {
			return err
		}
		return output.List(a.printer(), items, a.nodeColumns())
	})
	cmd.Aliases = []string{"ls"}
	l.add(cmd)
	return cmd
}

func newNodeShow(a *app) *cobra.Command {
	cmd := leaf("show NAME", "Show one node", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		n, err := c.Nodes.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(n, a.nodePairs(n))
	})
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}

func (a *app) nodePairs(n api.Node) []output.Pair {
	inv := n.Status.Inventory
	pairs := []output.Pair{
		{Key: "name", Value: n.Name},
		{Key: "id", Value: n.ID},
		{Key: "state", Value: n.Status.State},
		{Key: "reason", Value: n.Status.Reason},
		{Key: "seen", Value: ago(a.clock.Now(), n.Status.SeenAt)},
		{Key: "at shutdown", Value: n.Spec.ShutdownPolicy},
		{Key: "moves at once", Value: movesAtOnce(n.Spec)},
		{Key: "simulated", Value: yes(n.Status.Simulated)},
		{Key: "vms", Value: strconv.Itoa(n.Status.VMs)},
		{Key: "cpus", Value: output.Share(strconv.Itoa(n.Status.Used.CPUs), strconv.Itoa(n.Status.Capacity.CPUs))},
		{Key: "memory", Value: share(n.Status.Used.MemoryBytes, n.Status.Capacity.MemoryBytes)},
		{Key: "disk", Value: share(n.Status.Used.DiskBytes, n.Status.Capacity.DiskBytes)},
		{Key: "image cache", Value: upTo(inv.ImageCacheBytes)},
		{Key: "host", Value: inv.Hostname},
		{Key: "os", Value: inv.OS},
		{Key: "kernel", Value: inv.Kernel},
		{Key: "cpu model", Value: inv.CPUModel},
		{Key: "hypervisor", Value: strings.TrimSpace(inv.Hypervisor + " " + inv.HypervisorVersion)},
		{Key: "acceleration", Value: accelerationLine(inv)},
		{Key: "machine types", Value: strings.Join(inv.MachineTypes, " ")},
		{Key: "cpu models", Value: strings.Join(inv.CPUModels, " ")},
		{Key: "firmware", Value: strings.Join(inv.Firmware, " ")},
		{Key: "live migration", Value: yes(inv.LiveMigration)},
		{Key: "warm migration", Value: yes(inv.WarmMigration)},
		{Key: "confinement", Value: strings.Join(inv.Confinement, "; ")},
		{Key: "not confined by", Value: strings.Join(inv.Unconfined, "; ")},
		{Key: "limits guests by", Value: strings.Join(inv.Limits, ", ")},
		{Key: "agent", Value: n.Status.AgentVersion},
		{Key: "epoch", Value: strconv.FormatInt(n.Status.NodeEpoch, 10)},
		{Key: "certificate", Value: until(a.clock.Now(), n.Status.CertificateExpiresAt)},
	}
	for _, m := range inv.NUMA {
		pairs = append(pairs, output.Pair{Key: "numa " + strconv.Itoa(m.ID), Value: "cpus " + m.CPUs + ", " + size(m.MemoryBytes)})
	}
	for _, d := range inv.Disks {
		pairs = append(pairs, output.Pair{Key: "disk " + d.Name, Value: strings.TrimSpace(size(d.SizeBytes) + " " + d.Model)})
	}
	for _, b := range inv.Bridges {
		pairs = append(pairs, output.Pair{Key: "bridge " + b.Name, Value: bridgeLine(b)})
	}
	for _, p := range n.Status.StoragePools {
		is := "usable"
		if !p.Usable {
			is = "not usable: it " + p.Reason
		}
		pairs = append(pairs, output.Pair{Key: "pool " + p.Name, Value: is})
	}
	for _, n := range inv.Interfaces {
		pairs = append(pairs, output.Pair{Key: "interface " + n.Name, Value: interfaceLine(n)})
	}
	for _, h := range inv.HugePages {
		pairs = append(pairs, output.Pair{Key: "huge pages " + size(h.SizeBytes), Value: fmt.Sprintf("%d free of %d", h.Free, h.Total)})
	}
	for _, p := range inv.PCI {
		pairs = append(pairs, output.Pair{Key: "pci " + p.Address, Value: pciLine(p)})
	}
	return pairs
}

func upTo(n api.Bytes) string {
	if n == 0 {
		return ""
	}
	return "up to " + size(n)
}

func accelerationLine(inv api.Inventory) string {
	if inv.AccelerationReason == "" {
		return inv.Acceleration
	}
	return inv.Acceleration + ": " + inv.AccelerationReason
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func newNodeToken(a *app) *cobra.Command {
	cmd := leaf("token", "Make a single-use token with which a host joins", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		t, err := c.Nodes.Token(cmd.Context())
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(t)
		}
		fmt.Fprintln(a.out, t.Token)
		fmt.Fprintf(a.err, "it is good once, for %s; on the new host run:\n  %s\n",
			output.Duration(t.ExpiresAt.Sub(a.clock.Now())), output.Clean(t.Command))
		return nil
	})
	return cmd
}

func newNodeAction(a *app, verb, short string, act func(client.Nodes, context.Context, string) (api.Node, error)) *cobra.Command {
	cmd := leaf(verb+" NAME", short, names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		n, err := act(c.Nodes, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(n)
		}
		fmt.Fprintf(a.out, "node %s: %sed\n", args[0], strings.TrimSuffix(verb, "e"))
		return nil
	})
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}

func interfaceLine(n api.HostInterface) string {
	line := n.MAC + ", no carrier"
	if n.Up {
		line = n.MAC + ", up"
	}
	if n.SpeedMbps > 0 {
		line += fmt.Sprintf(", %d Mbit/s", n.SpeedMbps)
	}
	return line + fmt.Sprintf(", MTU %d", n.MTU)
}

func pciLine(p api.PCIDevice) string {
	line := p.Vendor + ":" + p.Device + ", class " + p.Class
	if p.Driver != "" {
		line += ", held by " + p.Driver
	}
	if p.IOMMUGroup != "" {
		line += ", IOMMU group " + p.IOMMUGroup
	}
	return line
}
