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
	autostart bool
	order     int
	delay     int64
	drain     string
}

func (f *policyFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.protected, "protect", false, "refuse to delete it or its disks; --protect=false allows it again")
	cmd.Flags().StringVar(&f.restart, "restart", "never", "start it again when its guest ended by itself: `never, on_failure or always`")
	cmd.Flags().BoolVar(&f.autostart, "autostart", true, "start it again when its node's host starts, if it ran; --autostart=false leaves it")
	cmd.Flags().IntVar(&f.order, "start-order", 0, "its `place` in what a host that starts brings up: 0 to 1000, lower ones first")
	cmd.Flags().Int64Var(&f.delay, "start-delay", 0, "`seconds` that a host that starts waits after it before the next place")
	cmd.Flags().StringVar(&f.drain, "drain", "live", "what becomes of it when its node is emptied: `live, cold, stop or refuse`")
	mustComplete(cmd.RegisterFlagCompletionFunc("drain", cobra.FixedCompletions(drainPolicies, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"never", "on_failure", "always"}, cobra.ShellCompDirectiveNoFileComp)))
}

// drainPolicies are the words of --drain and of node drain --policy.
var drainPolicies = []string{"live", "cold", "stop", "refuse"}

// patch puts what was given into a change.
func (f *policyFlags) patch(cmd *cobra.Command, p *api.VMPatch) {
	if cmd.Flags().Changed("protect") {
		p.Protected = &f.protected
	}
	if cmd.Flags().Changed("autostart") {
		p.Autostart = &f.autostart
	}
	if cmd.Flags().Changed("start-order") {
		p.StartOrder = &f.order
	}
	if cmd.Flags().Changed("start-delay") {
		p.StartDelaySeconds = &f.delay
	}
	if cmd.Flags().Changed("drain") {
		p.DrainPolicy = &f.drain
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
	if s.DrainPolicy != "" && s.DrainPolicy != "live" {
		pairs = append(pairs, output.Pair{Key: "when drained", Value: s.DrainPolicy})
	}
	return append(pairs, output.Pair{Key: "with its host", Value: startLine(s)})
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

// startLine says what a host that starts does with it; nothing where that is what
// it does with all.
func startLine(s api.VMSpec) string {
	switch {
	case !s.Autostart:
		return "is not started"
	case s.StartOrder == 0 && s.StartDelaySeconds == 0:
		return ""
	default:
		return fmt.Sprintf("is started in place %d, the next one %d s later", s.StartOrder, s.StartDelaySeconds)
	}
}

// create puts what was given into a creation.
func (f *policyFlags) create(r *api.VMCreate) {
	r.Protected, r.RestartPolicy, r.StartOrder, r.StartDelaySeconds = f.protected, f.given(), f.order, f.delay
	if f.drain != "live" {
		r.DrainPolicy = f.drain
	}
	if !f.autostart {
		r.Autostart = &f.autostart
	}
}
