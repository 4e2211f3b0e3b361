package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

func newVMMigrate(a *app) *cobra.Command {
	var w *waitFlags
	var req api.VMMigrate
	var plan bool
	cmd := leaf("migrate NAME", "Move a virtual machine to another node", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if plan {
			p, err := c.VMs.PlanMigration(cmd.Context(), args[0], req)
			if err != nil {
				return err
			}
			return a.printer().Describe(p, planPairs(p))
		}
		ch, err := c.VMs.Migrate(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		return a.settle(cmd, c, "migrate "+args[0], ch, w)
	})
	cmd.Long = `Move a virtual machine that is stopped or suspended to another node: its disks, what
cloud-init is told, what its UEFI firmware keeps, and the memory of one that is
suspended, which goes on there where it was. One that runs is suspended first.

Without --node it goes to the node that suits best. --plan changes nothing, and says
which nodes suit, why the others do not, how much would be copied and what is another
afterwards. Until everything is there, the machine is where it was, and the job can be
cancelled ('novacron job cancel').`
	cmd.Example = `  novacron vm migrate web --plan
  novacron vm migrate web --node rack2-7 --reason "new memory" --wait
  novacron vm suspend web --wait && novacron vm migrate web --wait && novacron vm resume web`
	f := cmd.Flags()
	f.StringVar(&req.Node, "node", "", "the `node` to move to; whichever suits best by default")
	f.StringVar(&req.Reason, "reason", "", "`why`, for the record")
	f.BoolVar(&plan, "plan", false, "change nothing, and say what would be done")
	mustComplete(cmd.RegisterFlagCompletionFunc("node", a.completeNodes))
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func planPairs(p api.MigrationPlan) []output.Pair {
	target := p.Target
	if target == "" {
		target = "none: no node suits"
	}
	pairs := []output.Pair{
		{Key: "type", Value: p.Type}, {Key: "from", Value: p.Source}, {Key: "to", Value: target}, {Key: "copies", Value: "up to " + size(p.Bytes)},
	}
	for _, c := range p.Candidates {
		if c.Node != p.Target {
			pairs = append(pairs, output.Pair{Key: "suits too", Value: c.Node})
		}
	}
	for _, r := range p.Rejected {
		pairs = append(pairs, output.Pair{Key: "does not suit", Value: r.Node + " " + strings.Join(r.Reasons, " and ")})
	}
	for _, n := range p.Notes {
		pairs = append(pairs, output.Pair{Key: "note", Value: n})
	}
	return pairs
}
