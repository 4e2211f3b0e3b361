package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

// policyFlags are what a person decides of a VM's life.
type policyFlags struct {
	protected bool
	restart   string
}

func (f *policyFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.protected, "protect", false, "refuse to delete it or its disks; --protect=false allows it again")
	cmd.Flags().StringVar(&f.restart, "restart", "never", "start it again when its guest ended by itself: `never, on_failure or always`")
	mustComplete(cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"never", "on_failure", "always"}, cobra.ShellCompDirectiveNoFileComp)))
}

// patch puts what was given into a change.
func (f *policyFlags) patch(cmd *cobra.Command, p *api.VMPatch) {
	if cmd.Flags().Changed("protect") {
		p.Protected = &f.protected
	}
	if cmd.Flags().Changed("restart") {
		p.RestartPolicy = &f.restart
	}
}

// policyPairs show what is not as by default, and what became of it.
func (a *app) policyPairs(v api.VM) (pairs []output.Pair) {
	s := v.Spec
	if s.Protected {
		pairs = append(pairs, output.Pair{Key: "protected", Value: "its deletion is refused"})
	}
	if s.RestartPolicy != "" && s.RestartPolicy != "never" {
		pairs = append(pairs, output.Pair{Key: "restart", Value: s.RestartPolicy + a.restarts(v.Status.Restarts)})
	}
	return pairs
}

// restarts tells what became of a VM by its restart policy.
func (a *app) restarts(r *api.VMRestarts) string {
	if r == nil {
		return ""
	}
	now := a.clock.Now()
	s := fmt.Sprintf("; %d so far, %d in a row", r.Total, r.InARow)
	if r.LastAt != nil {
		s += ", the last one " + ago(now, *r.LastAt)
	}
	s += "; it ended " + ago(now, r.EndedAt) + ": " + r.Reason
	switch {
	case r.GaveUpAt != nil:
		s += "; given up " + ago(now, *r.GaveUpAt) + ": look at 'novacron vm logs', then start it"
	case r.NextAt != nil:
		s += "; the next one at " + r.NextAt.UTC().Format(time.RFC3339)
	}
	return s
}

// given is the restart policy to ask for; none for the one that is so anyway.
func (f *policyFlags) given() string {
	if f.restart == "never" {
		return ""
	}
	return f.restart
}
