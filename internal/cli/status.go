package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

// overview is what "status" prints for programs.
type overview struct {
	System api.System     `json:"system"`
	Nodes  map[string]int `json:"nodes"`
	VMs    map[string]int `json:"vms"`
}

func newStatus(a *app) *cobra.Command {
	return leaf("status", "Show the cluster at a glance", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		o, err := look(cmd.Context(), c)
		if err != nil {
			return err
		}
		s := o.System
		return a.printer().Describe(o, []output.Pair{
			{Key: "cluster", Value: s.Cluster},
			{Key: "server", Value: s.Server + ", version " + s.Version},
			{Key: "addresses", Value: strings.Join(s.Servers, ", ")},
			{Key: "fingerprint", Value: s.Fingerprint},
			{Key: "you are", Value: s.Principal + ", " + s.Role},
			{Key: "setup", Value: setupLine(s)},
			{Key: "nodes", Value: counts(o.Nodes)},
			{Key: "vms", Value: counts(o.VMs)},
			{Key: "recovery", Value: s.RecoveryHold},
		})
	})
}

func setupLine(s api.System) string {
	if s.SetupDone {
		return ""
	}
	return "not done: no administrator has been made yet"
}

func look(ctx context.Context, c *client.Client) (overview, error) {
	o := overview{Nodes: map[string]int{}, VMs: map[string]int{}}
	var err error
	if o.System, err = c.System(ctx); err != nil {
		return o, err
	}
	for n, err := range c.Nodes.All(ctx, client.ListOptions{}) {
		if err != nil {
			return o, err
		}
		o.Nodes[n.Status.State]++
	}
	for v, err := range c.VMs.All(ctx, client.ListOptions{}) {
		if err != nil {
			return o, err
		}
		o.VMs[v.Status.State]++
	}
	return o, nil
}

// counts prints "3 ready, 1 unknown".
func counts(by map[string]int) string {
	if len(by) == 0 {
		return "none"
	}
	parts := make([]string, 0, len(by))
	for _, state := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, strconv.Itoa(by[state])+" "+state)
	}
	return strings.Join(parts, ", ")
}

func newVersion(a *app) *cobra.Command {
	return leaf("version", "Show the version of this program", names(), func(*cobra.Command, []string) error {
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(map[string]string{"version": a.version})
		}
		fmt.Fprintln(a.out, "novacron "+a.version)
		return nil
	})
}
