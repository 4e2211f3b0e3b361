package cli

import (
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newAudit(a *app) *cobra.Command {
	return group(a, "audit", "The record of attempts at changes", newAuditList(a), newAuditVerify(a))
}

func auditColumns() []output.Column[api.AuditRecord] {
	return []output.Column[api.AuditRecord]{
		{Title: "seq", Cell: func(r api.AuditRecord) string { return strconv.FormatInt(r.Seq, 10) }},
		{Title: "at", Cell: func(r api.AuditRecord) string { return r.At.UTC().Format(time.RFC3339) }},
		{Title: "who", Cell: func(r api.AuditRecord) string { return r.Principal }},
		{Title: "action", Cell: func(r api.AuditRecord) string { return r.Action }},
		{Title: "object", Cell: auditObject},
		{Title: "outcome", State: true, Cell: func(r api.AuditRecord) string { return r.Outcome }},
		{Title: "from", Wide: true, Cell: func(r api.AuditRecord) string { return r.Origin }},
		{Title: "role", Wide: true, Cell: func(r api.AuditRecord) string { return r.Role }},
		{Title: "job", Wide: true, Cell: func(r api.AuditRecord) string { return r.Job }},
		{Title: "request", Wide: true, Cell: func(r api.AuditRecord) string { return r.RequestID }},
	}
}

// auditObject is what a record is about; of many refusals in one record, how many.
func auditObject(r api.AuditRecord) string {
	if n, ok := r.Detail["requests"].(float64); ok {
		return fmt.Sprintf("%.0f more requests", n)
	}
	return r.Object.Kind + " " + r.Object.Name
}

func newAuditList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List attempts at changes, newest first", names(), func(cmd *cobra.Command, _ []string) error {
		return showList(a, cmd, &l, func(c *client.Client, o client.ListOptions) iter.Seq2[api.AuditRecord, error] {
			return c.Audit.All(cmd.Context(), o)
		}, auditColumns())
	})
	cmd.Aliases = []string{"ls"}
	cmd.Example = "  novacron audit list --outcome denied --limit 200"
	l.add(cmd)
	l.filter(cmd, "action", "of this `action`, such as vm.start; repeat it for more", nil)
	l.filter(cmd, "object", "about the object of this `name`, or of names beginning so with a '*' at its end", nil)
	l.filter(cmd, "outcome", "accepted or denied", nil)
	l.filter(cmd, "principal", "asked by this `principal`", nil)
	l.bound(cmd, 50, false)
	return cmd
}

func newAuditVerify(a *app) *cobra.Command {
	return leaf("verify", "Prove that no record was changed or removed", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		v, err := c.Audit.Verify(cmd.Context())
		if err != nil {
			return err
		}
		p := a.printer()
		switch {
		case p.Format.ForPrograms():
			err = p.Document(v)
		case v.Intact:
			fmt.Fprintf(a.out, "%s: %d records\n", p.State("intact"), v.Records)
		}
		if err == nil && !v.Intact {
			return errs.New(errs.Conflict, "the audit log is broken: %s", v.Problem)
		}
		return err
	})
}
