package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newNodeDrain(a *app) *cobra.Command {
	var w *waitFlags
	var req api.NodeDrain
	var plan, status bool
	var grace int64
	cmd := leaf("drain NAME", "Empty a node of its virtual machines", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("grace") {
			req.GraceSeconds = &grace
		}
		switch {
		case plan:
			p, err := c.Nodes.PlanDrain(cmd.Context(), args[0], req)
			return a.showPlan(p, err)
		case status:
			return a.showDrain(cmd, c, args[0])
		}
		ch, err := c.Nodes.Drain(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		return a.settle(cmd, c, "drain "+args[0], ch, w)
	})
	cmd.Long = `Cordon a node and empty it: each of its virtual machines is moved or stopped by its own
policy ('novacron vm set NAME --drain'), those first that a host starts first, and a few at
a time. live moves one while it runs where that can be done; else, and with cold, its guest
is shut down, and started again where it went. stop shuts it down and leaves it there.
refuse stands against the drain, which is then refused with what does, unless --partial
asks for what can be done.

--plan changes nothing, and says what would become of each. --status shows how far the
newest drain is. A drain that is cancelled ('novacron job cancel') leaves no machine
half-way; asked for again, it goes on with what is left. The node stays cordoned until
'novacron node return'.`
	cmd.Example = `  novacron node drain rack2-7 --plan
  novacron node drain rack2-7 --parallel 4 --reason "new memory" --wait
  novacron node drain rack2-7 --policy stop --partial
  novacron node drain rack2-7 --status`
	f := cmd.Flags()
	drainFlags(cmd, &req.Policy, &req.Parallel, &grace, &req.Reason, &plan)
	f.BoolVar(&req.Partial, "partial", false, "do what can be done, where machines stand against it")
	f.BoolVar(&status, "status", false, "change nothing, and show how far the newest drain is")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}

func newNodeReturn(a *app) *cobra.Command {
	var w *waitFlags
	var req api.NodeReturn
	var plan bool
	var grace int64
	cmd := leaf("return NAME", "Give a drained node virtual machines again", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("grace") {
			req.GraceSeconds = &grace
		}
		if plan {
			p, err := c.Nodes.PlanReturn(cmd.Context(), args[0], req)
			return a.showPlan(p, err)
		}
		ch, err := c.Nodes.Return(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		if ch.Job == nil && !a.printer().Format.ForPrograms() {
			fmt.Fprintf(a.out, "node %s: uncordoned; nothing is brought back\n", args[0])
			return nil
		}
		return a.settle(cmd, c, "return "+args[0], ch, w)
	})
	cmd.Long = `Uncordon a node. With --vms it gets back what drains took from it: what they moved is
moved back, what they stopped is started. Machines that somebody moved on, started or
deleted since stay as they are. Without --vms nothing is brought back, now or later.`
	cmd.Example = `  novacron node return rack2-7
  novacron node return rack2-7 --vms --plan
  novacron node return rack2-7 --vms --wait`
	cmd.Flags().BoolVar(&req.VMs, "vms", false, "bring back what drains took from it")
	drainFlags(cmd, &req.Policy, &req.Parallel, &grace, &req.Reason, &plan)
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeNodes
	return cmd
}

func drainFlags(cmd *cobra.Command, policy *string, parallel *int, grace *int64, reason *string, plan *bool) {
	f := cmd.Flags()
	f.StringVar(policy, "policy", "", "`live, cold, stop or refuse`, before what the machines have")
	f.IntVar(parallel, "parallel", 0, "work on so `many` machines at a time, 1 to 32; 2 by default")
	f.Int64Var(grace, "grace", 60, "`seconds` that a guest may take to shut down")
	f.StringVar(reason, "reason", "", "`why`, for the record")
	f.BoolVar(plan, "plan", false, "change nothing, and say what would be done")
	mustComplete(cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(drainPolicies, cobra.ShellCompDirectiveNoFileComp)))
}

func drainColumns() []output.Column[api.DrainVM] {
	return []output.Column[api.DrainVM]{
		{Title: "vm", Cell: func(v api.DrainVM) string { return v.Name }},
		{Title: "action", Cell: func(v api.DrainVM) string { return v.Action }},
		{Title: "to", Cell: func(v api.DrainVM) string { return v.Target }},
		{Title: "state", State: true, Cell: func(v api.DrainVM) string { return strings.TrimSpace(v.State + " " + v.Stage) }},
		{Title: "reason", Cell: func(v api.DrainVM) string { return v.Reason }},
		{Title: "job", Wide: true, Cell: func(v api.DrainVM) string { return v.Job }},
	}
}

// showPlan prints a plan, if it was made.
func (a *app) showPlan(p api.DrainPlan, failed error) error {
	if failed != nil {
		return failed
	}
	if out := a.printer(); out.Format.ForPrograms() {
		return out.Document(p)
	}
	if len(p.Blocked) > 0 {
		fmt.Fprintf(a.err, "%d stand against it: %s\n", len(p.Blocked), output.Clean(strings.Join(p.Blocked, ", ")))
	}
	return output.List(a.printer(), p.VMs, drainColumns())
}

func (a *app) showDrain(cmd *cobra.Command, c *client.Client, node string) error {
	d, err := c.Nodes.LastDrain(cmd.Context(), node)
	if err != nil {
		return err
	}
	if out := a.printer(); out.Format.ForPrograms() {
		return out.Document(d)
	}
	line := fmt.Sprintf("%s of node %s: %s, asked for by %s %s", d.Type, d.Node, d.State, d.CreatedBy, ago(a.clock.Now(), d.CreatedAt))
	if d.Reason != "" {
		line += ": " + d.Reason
	}
	fmt.Fprintln(a.err, output.Clean(line))
	return output.List(a.printer(), d.VMs, drainColumns())
}
