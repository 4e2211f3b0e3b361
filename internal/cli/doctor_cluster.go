package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/engine/pki"
)

// How soon the end of a certificate is worth a word. A node's is renewed more
// than two days before its end.
const (
	nodeCertificateSoon = pki.NodeLate
	rootSoon            = 365 * 24 * time.Hour
	// mostInFinding bounds the names in one finding.
	mostInFinding = 10
)

// examineCluster asks the server, if there is one.
func (a *app) examineCluster(cmd *cobra.Command) []finding {
	const check = "server"
	c, err := a.connect(cmd)
	var sys api.System
	if err == nil {
		sys, err = c.System(cmd.Context())
	}
	if err != nil {
		return []finding{warn(check, "'novacron up --detach' starts one here; 'novacron context add' remembers one elsewhere", "%s", publicError(err).Detail)}
	}
	out := []finding{fine(check, "%s, version %s", sys.Server, sys.Version)}
	if sys.Version != a.version {
		out = append(out, warn(check, "use the program of the server's version", "the server is version %s, this program %s", sys.Version, a.version))
	}
	if !sys.SetupDone {
		out = append(out, warn("setup", "'novacron context add NAME --address HOST:PORT --setup-token -' from where you work", "no administrator has been made: only this machine's socket is let in"))
	}
	d := &clusterDoctor{app: a, client: c}
	return append(out, examine(cmd.Context(), d.authority, d.recovery, d.nodes, d.vms, d.jobs, d.tasks, d.audit)...)
}

type clusterDoctor struct {
	app    *app
	client *client.Client
}

// unasked is the finding of a question that was not answered.
func unasked(check string, err error) []finding {
	return []finding{warn(check, "use an administrator's token to see more", "not looked at: %s", publicError(err).Detail)}
}

func (d *clusterDoctor) authority(ctx context.Context) []finding {
	const check = "certificates"
	ca, err := d.client.CA(ctx)
	if err != nil {
		return unasked(check, err)
	}
	if left := ca.ExpiresAt.Sub(d.app.clock.Now()); left < rootSoon {
		return []finding{bad(check, "plan a new cluster, or a version that replaces the root", "the cluster's root certificate ends on %s", ca.ExpiresAt.Format(time.DateOnly))}
	}
	return []finding{fine(check, "the cluster's root is good until %s", ca.ExpiresAt.Format(time.DateOnly))}
}

func (d *clusterDoctor) recovery(ctx context.Context) []finding {
	const check = "recovery"
	r, err := d.client.Recovery(ctx)
	switch {
	case err != nil:
		return unasked(check, err)
	case r.Held:
		return []finding{bad(check, "'novacron recovery show' lists what differs; 'novacron recovery confirm' ends the hold", "%s", holdLine(&r))}
	case len(r.Left) > 0:
		return []finding{warn(check, "'novacron recovery show' lists them; look at their nodes", "%d virtual machines that the database does not have were left on their nodes", len(r.Left))}
	}
	return []finding{fine(check, "nothing is held")}
}

func (d *clusterDoctor) nodes(ctx context.Context) (out []finding) {
	const check = "nodes"
	count := 0
	for n, err := range d.client.Nodes.All(ctx, client.ListOptions{}) {
		if err != nil {
			return append(out, unasked(check, err)...)
		}
		count++
		out = append(out, d.node(n)...)
	}
	if count == 0 {
		return []finding{warn(check, "'novacron node token' on the server, then the command it prints on the host", "there is no node: nothing can run")}
	}
	return append(out, fine(check, "%d", count))
}

func (d *clusterDoctor) node(n api.Node) (out []finding) {
	check := "node " + n.Name
	if n.Status.State == "unknown" {
		out = append(out, bad(check, "look at the agent on "+n.Status.Inventory.Hostname+" and its log; 'novacron node remove --force' when it is gone for good", "%s", n.Status.Reason))
	}
	if at := n.Status.CertificateExpiresAt; at != nil && at.Sub(d.app.clock.Now()) < nodeCertificateSoon {
		out = append(out, bad(check, "look at the agent's log: it renews by itself when it reaches a server", "its certificate ends on %s and has not been renewed", at.Format(time.RFC3339)))
	}
	if n.Status.Simulated {
		return out
	}
	if n.Status.Inventory.Acceleration == "tcg" {
		out = append(out, warn(check, "see 'novacron doctor --host' on that machine", "guests run without hardware virtualization: %s", n.Status.Inventory.AccelerationReason))
	}
	for _, missing := range n.Status.Inventory.Unconfined {
		out = append(out, warn(check, "see what a host offers in docs/security.md", "guests are not isolated by %s", missing))
	}
	if len(n.Status.Inventory.Unconfined) == 0 && !slices.ContainsFunc(n.Status.Inventory.Confinement, func(c string) bool { return strings.HasPrefix(c, "cgroup") }) {
		out = append(out, warn(check, "run the agent as root, with cgroups mounted", "guests have no cgroup: one guest can starve the others"))
	}
	return out
}

func (d *clusterDoctor) vms(ctx context.Context) (out []finding) {
	const check = "VMs"
	all := 0
	trouble := map[string][]string{}
	for v, err := range d.client.VMs.All(ctx, client.ListOptions{}) {
		if err != nil {
			return unasked(check, err)
		}
		all++
		switch v.Status.State {
		case "failed", "unknown", "pending":
			trouble[v.Status.State] = append(trouble[v.Status.State], v.Name)
		}
	}
	for state, vms := range trouble {
		out = append(out, warn(check, "'novacron vm show NAME' has the reason and the way out", "%d are %s: %s", len(vms), state, some(vms)))
	}
	slices.SortFunc(out, func(a, b finding) int { return strings.Compare(a.Message, b.Message) })
	return append(out, fine(check, "%d", all))
}

func (d *clusterDoctor) jobs(ctx context.Context) []finding {
	const check = "jobs"
	var stuck []string
	for j, err := range d.client.Jobs.All(ctx, client.ListOptions{Filter: map[string]string{"state": "needs_attention"}}) {
		if err != nil {
			return unasked(check, err)
		}
		stuck = append(stuck, j.ID+" ("+j.Type+" "+j.Target.Name+")")
	}
	if len(stuck) > 0 {
		return []finding{bad(check, "'novacron job show ID' names what stands in the way; remove it, then 'novacron job retry ID'", "%d need attention: %s", len(stuck), some(stuck))}
	}
	return []finding{fine(check, "none needs attention")}
}

func (d *clusterDoctor) tasks(ctx context.Context) (out []finding) {
	const check = "reconcilers"
	tasks, err := d.client.Tasks(ctx)
	if err != nil {
		return unasked(check, err)
	}
	for _, t := range tasks {
		if t.LastError != "" {
			out = append(out, bad(check, "look at the server's log", "%s failed: %s", t.Name, t.LastError))
		}
	}
	return append(out, fine(check, "%d", len(tasks)))
}

func (d *clusterDoctor) audit(ctx context.Context) []finding {
	const check = "audit log"
	v, err := d.client.Audit.Verify(ctx)
	switch {
	case err != nil:
		return unasked(check, err)
	case !v.Intact:
		return []finding{bad(check, "find out who can write to the database, and restore the log from a backup", "%s", v.Problem)}
	}
	return []finding{fine(check, "%d records, intact", v.Records)}
}

// some names the first of many.
func some(names []string) string {
	if len(names) <= mostInFinding {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:mostInFinding], ", ") + ", ..."
}
