package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/client"
)

// completeTimeout keeps a Tab from hanging when the server is away.
const completeTimeout = 2 * time.Second

// complete offers names that a list holds; a failure offers nothing.
func (a *app) complete(cmd *cobra.Command, list func(context.Context, *client.Client) ([]string, error)) (
	[]string, cobra.ShellCompDirective,
) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	c, err := a.connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found, err := list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeVMs(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		page, err := c.VMs.List(ctx, client.ListOptions{})
		var found []string
		for _, v := range page.Items {
			found = append(found, v.Name)
		}
		return found, err
	})
}

func (a *app) completeImages(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		page, err := c.Images.List(ctx, client.ListOptions{})
		var found []string
		for _, i := range page.Items {
			found = append(append(found, i.Name), i.Spec.Aliases...)
		}
		return found, err
	})
}

func (a *app) completeNodes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		page, err := c.Nodes.List(ctx, client.ListOptions{})
		var found []string
		for _, n := range page.Items {
			found = append(found, n.Name)
		}
		return found, err
	})
}

func (a *app) completePools(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		page, err := c.StoragePools.List(ctx, client.ListOptions{})
		var found []string
		for _, p := range page.Items {
			found = append(found, p.Name)
		}
		return found, err
	})
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, err := a.loadContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, c := range all.Contexts {
		found = append(found, c.Name)
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
