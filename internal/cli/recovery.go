package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newRecovery(a *app) *cobra.Command {
	cmd := group(a, "recovery", "Going back to an older database", newRecoveryShow(a), newRecoveryConfirm(a))
	cmd.Long = `When the database knows less than the nodes, because a backup was restored or a
replica that lagged behind took over, what that concerns is held: no virtual machine
is started, stopped or deleted, and jobs wait, until an operator has seen what
differs and confirmed what is done about it. Guests go on running meanwhile.`
	return cmd
}

func newRecoveryShow(a *app) *cobra.Command {
	cmd := leaf("show", "Show what is held, what differs, and what confirming it does", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		r, err := c.Recovery(cmd.Context())
		if err != nil {
			return err
		}
		return a.showRecovery(r)
	})
	cmd.Long = `Show what is in recovery hold. Virtual machines that differ are

  changed    the database and the node know it, the node more: it is adopted as the
             node has it
  unknown    the node has it, the database does not: it is adopted from the node's
             record, or left alone
  missing    the database has it, its node does not: it becomes failed, and can be
             deleted
  elsewhere  a node has it that is not its own: it is left alone

The plan is named by what differs: 'novacron recovery confirm' takes that name, so
that nothing is confirmed that was not shown.`
	return cmd
}

// holdLine says on one line what is held; empty when nothing is.
func holdLine(r *api.Recovery) string {
	switch {
	case r == nil || !r.Held:
		return ""
	case r.Cause != "":
		return "the cluster is in recovery hold: " + r.Reason
	}
	var held []string
	for _, n := range r.Nodes {
		held = append(held, n.Name)
	}
	return "nodes that are in recovery hold: " + some(held)
}

func (a *app) showRecovery(r api.Recovery) error {
	p := a.printer()
	pairs := []output.Pair{{Key: "held", Value: holdLine(&r)}, {Key: "plan", Value: r.Plan}, {Key: "backup of", Value: moment(r.BackupOf)}, {Key: "confirmed", Value: confirmedLine(r)}}
	if !r.Held {
		pairs[0].Value = "nothing"
	}
	if err := p.Describe(r, pairs); err != nil || p.Format.ForPrograms() {
		return err
	}
	if err := a.section(len(r.Nodes), "nodes", func() error { return output.List(p, r.Nodes, recoveryNodeColumns()) }); err != nil {
		return err
	}
	if err := a.section(len(r.VMs), "virtual machines that differ", func() error { return output.List(p, r.VMs, recoveryVMColumns()) }); err != nil {
		return err
	}
	err := a.section(len(r.Jobs), "jobs that had not ended", func() error {
		return output.List(p, r.Jobs, []output.Column[api.RecoveryJob]{
			{Title: "id", Cell: func(j api.RecoveryJob) string { return j.ID }},
			{Title: "type", Cell: func(j api.RecoveryJob) string { return j.Type }},
			{Title: "target", Cell: func(j api.RecoveryJob) string { return j.Target.Name }},
			{Title: "action", Cell: func(j api.RecoveryJob) string { return j.Action }},
			{Title: "why", Cell: func(j api.RecoveryJob) string { return j.Why }},
		})
	})
	if err != nil {
		return err
	}
	err = a.section(len(r.Left), "left alone", func() error {
		return output.List(p, r.Left, []output.Column[api.RecoveryLeft]{
			{Title: "vm", Cell: func(l api.RecoveryLeft) string { return l.Name }},
			{Title: "node", Cell: func(l api.RecoveryLeft) string { return l.Node }},
			{Title: "by", Cell: func(l api.RecoveryLeft) string { return l.By }},
			{Title: "id", Cell: func(l api.RecoveryLeft) string { return l.VM }},
		})
	})
	if err == nil && r.Held {
		fmt.Fprintf(a.err, "\nTo do what is said and end the hold: novacron recovery confirm --plan %s\n", r.Plan)
	}
	return err
}

// section prints a list that is not empty below a title.
func (a *app) section(items int, title string, show func() error) error {
	if items == 0 {
		return nil
	}
	fmt.Fprintf(a.out, "\n%s\n", title)
	return show()
}

func recoveryNodeColumns() []output.Column[api.RecoveryNode] {
	return []output.Column[api.RecoveryNode]{
		{Title: "name", Cell: func(n api.RecoveryNode) string { return n.Name }},
		{Title: "state", Cell: func(n api.RecoveryNode) string { return n.State }},
		{Title: "held because", Cell: func(n api.RecoveryNode) string { return n.Reason }},
	}
}

func recoveryVMColumns() []output.Column[api.RecoveryVM] {
	return []output.Column[api.RecoveryVM]{
		{Title: "name", Cell: func(v api.RecoveryVM) string { return v.Name }},
		{Title: "case", Cell: func(v api.RecoveryVM) string { return v.Case }},
		{Title: "node", Cell: func(v api.RecoveryVM) string { return v.Node }},
		{Title: "seen", Cell: func(v api.RecoveryVM) string { return v.Phase }},
		{Title: "action", Cell: func(v api.RecoveryVM) string {
			if v.As != "" {
				return v.Action + " as " + v.As
			}
			return v.Action
		}},
		{Title: "difference", Cell: func(v api.RecoveryVM) string {
			if v.Why != "" {
				return strings.Join(v.Differences, "; ") + " (" + v.Why + ")"
			}
			return strings.Join(v.Differences, "; ")
		}},
		{Title: "recorded", Wide: true, Cell: func(v api.RecoveryVM) string { return moment(v.RecordedAt) }},
		{Title: "id", Wide: true, Cell: func(v api.RecoveryVM) string { return v.ID }},
	}
}

func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func confirmedLine(r api.Recovery) string {
	if r.ConfirmedAt == nil {
		return ""
	}
	return fmt.Sprintf("plan %s, by %s at %s", r.Confirmed, r.ConfirmedBy, moment(r.ConfirmedAt))
}

func newRecoveryConfirm(a *app) *cobra.Command {
	var req api.RecoveryConfirm
	cmd := leaf("confirm --plan ID", "Carry out the plan that was shown, and end the hold", names(), func(cmd *cobra.Command, _ []string) error {
		if req.Plan == "" {
			return usage(cmd, "--plan is missing: 'novacron recovery show' names what is to be confirmed")
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if err := resolveUnknown(cmd, c, &req); err != nil {
			return err
		}
		r, err := c.ConfirmRecovery(cmd.Context(), req)
		if err != nil {
			return err
		}
		p := a.printer()
		switch {
		case p.Format.ForPrograms():
			return p.Document(r)
		case r.Held:
			fmt.Fprintf(a.out, "done; %s\n", output.Clean(holdLine(&r)))
		default:
			fmt.Fprintln(a.out, "done; nothing is held any more")
		}
		return nil
	})
	cmd.Long = `Carry out the plan that 'novacron recovery show' named, as a whole or not at all,
and end the hold. What differs in another way by now is refused: look again.

Nothing is started or stopped by it. Nodes that were away stay held by themselves,
until they are back and what they have is confirmed in the same way.

Virtual machines that the database does not know are adopted, unless --leave says
otherwise; those that were left before stay so, unless --adopt says otherwise.`
	cmd.Flags().StringVar(&req.Plan, "plan", "", "the `plan` that was shown")
	cmd.Flags().StringArrayVar(&req.Leave, "leave", nil, "leave this unknown `VM` alone on its node; repeat it for more")
	cmd.Flags().StringArrayVar(&req.Adopt, "adopt", nil, "adopt this unknown `VM`, which was left before; repeat it for more")
	return cmd
}

// resolveUnknown turns names of unknown virtual machines into ids.
func resolveUnknown(cmd *cobra.Command, c *client.Client, req *api.RecoveryConfirm) error {
	if len(req.Leave)+len(req.Adopt) == 0 {
		return nil
	}
	r, err := c.Recovery(cmd.Context())
	if err != nil {
		return err
	}
	for _, refs := range [][]string{req.Leave, req.Adopt} {
		for i, ref := range refs {
			var found []string
			for _, v := range r.VMs {
				if v.Case == "unknown" && (v.Name == ref || v.ID == ref) {
					found = append(found, v.ID)
				}
			}
			if len(found) != 1 {
				return errs.New(errs.NotFound, "there is no unknown virtual machine %q, or more than one: name it by its id ('novacron recovery show -o wide')", errs.Clip(ref))
			}
			refs[i] = found[0]
		}
	}
	return nil
}
