package cli

import (
	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

// policyFlags are what a person decides of a VM's life.
type policyFlags struct {
	protected bool
}

func (f *policyFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.protected, "protect", false, "refuse to delete it or its disks; --protect=false allows it again")
}

// patch puts what was given into a change.
func (f *policyFlags) patch(cmd *cobra.Command, p *api.VMPatch) {
	if cmd.Flags().Changed("protect") {
		p.Protected = &f.protected
	}
}

// policyPairs show what is not as by default.
func policyPairs(s api.VMSpec) (pairs []output.Pair) {
	if s.Protected {
		pairs = append(pairs, output.Pair{Key: "protected", Value: "its deletion is refused"})
	}
	return pairs
}
