package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newToken(a *app) *cobra.Command {
	cmd := group(a, "token", "API tokens", newTokenCreate(a), newTokenList(a), newTokenRevoke(a))
	cmd.Aliases = []string{"tokens"}
	return cmd
}

func newTokenCreate(a *app) *cobra.Command {
	var role string
	var life time.Duration
	cmd := leaf("create NAME", "Make an API token; it is shown once", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		req := api.TokenCreate{Name: args[0], Role: role}
		if cmd.Flags().Changed("expires-in") {
			seconds := int64(life / time.Second)
			req.ExpiresInSeconds = &seconds
		}
		t, err := c.Tokens.Create(cmd.Context(), req)
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(t)
		}
		fmt.Fprintln(a.out, t.Token)
		fmt.Fprintf(a.err, "%s, expires %s; it is not shown again\n", output.Clean(t.Role), until(a.clock.Now(), t.ExpiresAt))
		return nil
	})
	cmd.Flags().StringVar(&role, "role", "reader", "what it may do: `reader|administrator`")
	cmd.Flags().DurationVar(&life, "expires-in", 90*24*time.Hour, "how long it is good")
	mustComplete(cmd.RegisterFlagCompletionFunc("role",
		cobra.FixedCompletions([]string{"reader", "administrator"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (a *app) tokenColumns() []output.Column[api.Token] {
	now := a.clock.Now()
	return []output.Column[api.Token]{
		{Title: "id", Cell: func(t api.Token) string { return t.ID }},
		{Title: "name", Cell: func(t api.Token) string { return t.Name }},
		{Title: "role", Cell: func(t api.Token) string { return t.Role }},
		{Title: "expires", State: true, Cell: func(t api.Token) string {
			if t.RevokedAt != nil {
				return "revoked"
			}
			return until(now, t.ExpiresAt)
		}},
		{Title: "used", Cell: func(t api.Token) string { return agePtr(now, t.LastUsedAt) }},
		{Title: "age", Cell: func(t api.Token) string { return output.Age(now, t.CreatedAt) }},
		{Title: "by", Wide: true, Cell: func(t api.Token) string { return t.CreatedBy }},
	}
}

func newTokenList(a *app) *cobra.Command {
	cmd := leaf("list", "List API tokens", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		items, err := client.Collect(c.Tokens.All(cmd.Context(), client.ListOptions{}))
		if err != nil {
			return err
		}
		return output.List(a.printer(), items, a.tokenColumns())
	})
	cmd.Aliases = []string{"ls"}
	return cmd
}

func newTokenRevoke(a *app) *cobra.Command {
	var force bool
	cmd := leaf("revoke ID", "End an API token at once", names("ID"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		revoke := c.Tokens.Revoke
		if force {
			revoke = c.Tokens.RevokeByForce
		}
		if err := revoke(cmd.Context(), args[0]); err != nil {
			return err
		}
		if !a.printer().Format.ForPrograms() {
			fmt.Fprintf(a.out, "token %s: revoked\n", args[0])
		}
		return nil
	})
	cmd.Long = `End an API token at once: it is refused from the next request on.

The last token of an administrator is refused, since without it the cluster can only
be administered on a server's own machine. --force ends it all the same.`
	cmd.Flags().BoolVar(&force, "force", false, "also when it is the last administrator's token")
	return cmd
}
