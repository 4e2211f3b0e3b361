package cli

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newVM(a *app) *cobra.Command {
	cmd := group(a, "vm", "Virtual machines",
		newVMCreate(a), newVMImport(a), newVMExport(a), newVMClone(a), newVMMigrate(a), newVMCutover(a), newVMList(a), newVMShow(a),
		newVMAction(a, "start", "Start virtual machines", client.VMs.Start),
		newVMStop(a, "stop", "Shut virtual machines down; power them off when they do not", client.VMs.Stop),
		newVMStop(a, "restart", "Shut virtual machines down and start them again", client.VMs.Restart),
		newVMAction(a, "pause", "Halt the CPUs of virtual machines; their memory stays", client.VMs.Pause),
		newVMAction(a, "suspend", "Save the memory of virtual machines to disk and end them", client.VMs.Suspend),
		newVMAction(a, "resume", "Let paused or suspended virtual machines go on", client.VMs.Resume),
		newVMGuest(a), newVMDf(a), newVMExec(a), newVMFreeze(a), newVMThaw(a), newVMSet(a), newVMLabel(a), newVMDisk(a), newVMCDROM(a), newVMDelete(a), newVMConsole(a), newVMVNC(a), newVMScreenshot(a), newVMLogs(a))
	cmd.Aliases = []string{"vms"}
	return cmd
}

func (a *app) vmColumns() []output.Column[api.VM] {
	now := a.clock.Now()
	return []output.Column[api.VM]{
		{Title: "name", Cell: func(v api.VM) string { return v.Name }},
		{Title: "state", State: true, Cell: func(v api.VM) string { return v.Status.State }},
		{Title: "node", Cell: func(v api.VM) string { return v.Status.Node }},
		{Title: "cpus", Cell: func(v api.VM) string { return strconv.Itoa(v.Spec.CPUs) }},
		{Title: "memory", Cell: func(v api.VM) string { return size(v.Spec.MemoryBytes) }},
		{Title: "age", Cell: func(v api.VM) string { return output.Age(now, v.CreatedAt) }},
		{Title: "address", Wide: true, Cell: func(v api.VM) string { return address(v.Status) }},
		{Title: "image", Wide: true, Cell: func(v api.VM) string { return v.Spec.Image }},
		{Title: "disks", Wide: true, Cell: diskSizes},
		{Title: "labels", Wide: true, Cell: func(v api.VM) string { return output.Labels(v.Labels) }},
		{Title: "reason", Wide: true, Cell: func(v api.VM) string { return v.Status.Reason }},
		{Title: "id", Wide: true, Cell: func(v api.VM) string { return v.ID }},
	}
}

func diskSizes(v api.VM) string {
	sizes := make([]string, len(v.Spec.Disks))
	for i, d := range v.Spec.Disks {
		sizes[i] = size(d.SizeBytes)
	}
	return strings.Join(sizes, "+")
}

func newVMList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List virtual machines", names(), func(cmd *cobra.Command, _ []string) error {
		return showList(a, cmd, &l, func(c *client.Client, o client.ListOptions) iter.Seq2[api.VM, error] {
			return c.VMs.All(cmd.Context(), o)
		}, a.vmColumns())
	})
	cmd.Aliases = []string{"ls"}
	cmd.Example = `  novacron vm list --state running,paused --node node-1
  novacron vm list --label tier=web --label env=prod --sort -memory_bytes
  novacron vm list --name 'web-*' --state failed --state unknown`
	l.add(cmd)
	l.filter(cmd, "state", "in this `state`, such as running; repeat it for more", cobra.FixedCompletions(vmStates, cobra.ShellCompDirectiveNoFileComp))
	l.filter(cmd, "node", "on this `node`; repeat it for more", a.completeNodes)
	l.filter(cmd, "image", "made from this `image`; repeat it for more", a.completeImages)
	l.filter(cmd, "label", "with this label, `key or key=value`; repeated, with each", nil)
	l.filter(cmd, "name", "with this `name`, or beginning so with a '*' at its end", nil)
	l.bound(cmd, mostVMs, true)
	mustComplete(cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(vmSorts, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// mostVMs is how many a person gets to see at once.
const mostVMs = 500

// What Tab offers; the server has the last word.
var (
	vmStates = []string{
		"pending", "provisioning", "starting", "running", "paused", "suspended", "stopping", "stopped",
		"migrating", "restoring", "deleting", "failed", "unknown",
	}
	vmSorts = []string{"name", "created_at", "cpus", "memory_bytes", "node", "-name", "-created_at", "-cpus", "-memory_bytes", "-node"}
)

func newVMShow(a *app) *cobra.Command {
	cmd := leaf("show NAME", "Show one virtual machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		v, err := c.VMs.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(v, a.vmPairs(v))
	})
	cmd.Long = `Show one virtual machine: what it is to be, and how it is.

Its guest's addresses are what its node looked up last, by the agent in the guest: up
to a minute old, or ten where they change often. 'vm guest' asks the guest now.`
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func (a *app) vmPairs(v api.VM) []output.Pair {
	now := a.clock.Now()
	pairs := []output.Pair{
		{Key: "name", Value: v.Name},
		{Key: "id", Value: v.ID},
		{Key: "state", Value: v.Status.State},
		{Key: "since", Value: ago(now, v.Status.Since)},
		{Key: "reason", Value: v.Status.Reason},
		{Key: "last state", Value: v.Status.LastState},
		{Key: "node", Value: v.Status.Node},
		{Key: "job", Value: v.Status.Job},
		{Key: "addresses", Value: strings.Join(v.Status.Addresses, ", ")},
		{Key: "frozen", Value: frozen(v.Status.Frozen)},
		{Key: "power", Value: v.Spec.Power},
		{Key: "cpus", Value: strconv.Itoa(v.Spec.CPUs)},
		{Key: "memory", Value: size(v.Spec.MemoryBytes)},
		{Key: "image", Value: v.Spec.Image},
		{Key: "labels", Value: output.Labels(v.Labels)},
		{Key: "created", Value: ago(now, v.CreatedAt)},
		{Key: "revision", Value: strconv.FormatInt(v.Revision, 10)},
	}
	pairs = append(pairs, limitPairs(v.Spec)...)
	pairs = append(pairs, hardwarePairs(v.Spec.Machine)...)
	pairs = append(pairs, a.policyPairs(v)...)
	for _, d := range v.Spec.Disks {
		value := size(d.SizeBytes)
		if d.Image != "" {
			value += " from " + d.Image
		}
		if d.Pool != "" {
			value += " in pool " + d.Pool
		}
		if l := diskLimits(d.Limits); l != "" {
			value += ", at most " + l
		}
		pairs = append(pairs, output.Pair{Key: "disk " + strconv.Itoa(d.Slot), Value: value})
	}
	pairs = append(pairs, output.Pair{Key: "cdrom", Value: v.Spec.CDROM}, output.Pair{Key: "seed", Value: v.Spec.SeedImage})
	pairs = append(pairs, cloudPairs(v.Spec.CloudInit)...)
	for i, n := range v.Spec.NICs {
		pairs = append(pairs, output.Pair{Key: "nic " + strconv.Itoa(i), Value: n.MAC + onBridge(n.Bridge) + forwards(n.Forwards)})
	}
	for _, p := range v.Status.Placement {
		pairs = append(pairs, output.Pair{Key: "not on " + p.Node, Value: strings.Join(p.Reasons, "; ")})
	}
	return pairs
}

func forwards(all []api.Forward) string {
	var b strings.Builder
	for _, f := range all {
		host := f.HostIP
		if host != "" {
			host += ":"
		}
		fmt.Fprintf(&b, ", %s %s%d to %d", f.Protocol, host, f.HostPort, f.GuestPort)
	}
	return b.String()
}

// newVMAction makes a verb that takes names and nothing else.
func newVMAction(a *app, verb, short string, act func(client.VMs, context.Context, string) (client.Change, error)) *cobra.Command {
	var w *waitFlags
	cmd := leaf(verb+" NAME...", short, someNames, func(cmd *cobra.Command, args []string) error {
		return a.eachVM(cmd, args, w, func(c *client.Client, vm string) (client.Change, error) {
			return act(c.VMs, cmd.Context(), vm)
		})
	})
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// newVMStop makes a verb that says how to shut down.
func newVMStop(a *app, verb, short string,
	act func(client.VMs, context.Context, string, api.VMStop) (client.Change, error),
) *cobra.Command {
	var w *waitFlags
	var how api.VMStop
	var grace int
	cmd := leaf(verb+" NAME...", short, someNames, func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("grace") {
			how.GraceSeconds = &grace
		}
		return a.eachVM(cmd, args, w, func(c *client.Client, vm string) (client.Change, error) {
			return act(c.VMs, cmd.Context(), vm, how)
		})
	})
	cmd.Flags().BoolVar(&how.Force, "force", false, "power off at once, without asking the guest")
	cmd.Flags().IntVar(&grace, "grace", 60, "`seconds` the guest may take before it is powered off")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// eachVM asks for all changes first and then waits for each: they run side by
// side. The first error is the command's, the others are reported as they come.
func (a *app) eachVM(cmd *cobra.Command, vms []string, w *waitFlags, act func(*client.Client, string) (client.Change, error)) error {
	c, err := a.connect(cmd)
	if err != nil {
		return err
	}
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		} else if err != nil {
			a.report(cmd, err)
		}
	}
	type asked struct {
		vm string
		ch client.Change
	}
	var accepted []asked
	for _, vm := range vms {
		ch, err := act(c, vm)
		if err != nil {
			keep(err)
			continue
		}
		accepted = append(accepted, asked{vm, ch})
	}
	for _, one := range accepted {
		keep(a.settle(cmd, c, cmd.Name()+" "+one.vm, one.ch, w))
	}
	return first
}
