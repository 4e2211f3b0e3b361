package cli

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/near"
)

// readable is how objects of one kind are read.
type readable struct {
	get func(context.Context, *client.Client, string) (any, error)
	all func(context.Context, *client.Client) ([]any, error)
}

func readables[T any](get func(context.Context, *client.Client, string) (T, error), all func(context.Context, *client.Client) iter.Seq2[T, error]) readable {
	return readable{
		get: func(ctx context.Context, c *client.Client, name string) (any, error) { return get(ctx, c, name) },
		all: func(ctx context.Context, c *client.Client) ([]any, error) {
			out := []any{}
			for item, err := range all(ctx, c) {
				if err != nil {
					return nil, err
				}
				out = append(out, item)
			}
			return out, nil
		},
	}
}

// documentKinds are the kinds that get knows.
var documentKinds = map[string]readable{
	"vm": readables(
		func(ctx context.Context, c *client.Client, name string) (api.VM, error) { return c.VMs.Get(ctx, name) },
		func(ctx context.Context, c *client.Client) iter.Seq2[api.VM, error] {
			return c.VMs.All(ctx, client.ListOptions{Sort: "name"})
		}),
	"image": readables(
		func(ctx context.Context, c *client.Client, name string) (api.Image, error) {
			return c.Images.Get(ctx, name)
		},
		func(ctx context.Context, c *client.Client) iter.Seq2[api.Image, error] {
			return c.Images.All(ctx, client.ListOptions{Sort: "name"})
		}),
	"node": readables(
		func(ctx context.Context, c *client.Client, name string) (api.Node, error) {
			return c.Nodes.Get(ctx, name)
		},
		func(ctx context.Context, c *client.Client) iter.Seq2[api.Node, error] {
			return c.Nodes.All(ctx, client.ListOptions{Sort: "name"})
		}),
	"job": readables(
		func(ctx context.Context, c *client.Client, name string) (api.Job, error) {
			return c.Jobs.Get(ctx, name)
		},
		func(ctx context.Context, c *client.Client) iter.Seq2[api.Job, error] {
			return c.Jobs.All(ctx, client.ListOptions{})
		}),
	"token": readables(getToken, func(ctx context.Context, c *client.Client) iter.Seq2[api.Token, error] {
		return c.Tokens.All(ctx, client.ListOptions{})
	}),
}

// getToken finds a token by its id or name: there is no route for one.
func getToken(ctx context.Context, c *client.Client, name string) (api.Token, error) {
	for t, err := range c.Tokens.All(ctx, client.ListOptions{}) {
		if err != nil || t.ID == name || t.Name == name {
			return t, err
		}
	}
	return api.Token{}, errs.New(errs.NotFound, "there is no token %q", errs.Clip(name))
}

// kindOf reads a kind as a person writes it.
func kindOf(cmd *cobra.Command, word string) (readable, error) {
	kind, ok := documentKinds[word]
	if !ok {
		kind, ok = documentKinds[strings.TrimSuffix(word, "s")]
	}
	if !ok {
		known := slices.Sorted(maps.Keys(documentKinds))
		return kind, usage(cmd, "there is no kind %q%s; there is %s", word, near.Hint(word, slices.Values(known)), strings.Join(known, ", "))
	}
	return kind, nil
}

func newGet(a *app) *cobra.Command {
	cmd := leaf("get KIND [NAME...]", "Print objects as documents", cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, "KIND is missing: %s KIND [NAME...]", cmd.CommandPath())
		}
		kind, err := kindOf(cmd, args[0])
		if err != nil {
			return err
		}
		format, err := a.documentFormat(cmd, args[0])
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		docs := []any{}
		for _, name := range args[1:] {
			d, err := kind.get(cmd.Context(), c, name)
			if err != nil {
				return err
			}
			docs = append(docs, d)
		}
		if len(args) == 1 {
			if docs, err = kind.all(cmd.Context(), c); err != nil {
				return err
			}
		}
		return a.printDocuments(format, docs, len(args) == 2)
	})
	cmd.Long = `Print objects as documents: everything there is of them, or those that are named.
A kind is vm, image, node, job or token.

Without -o they are YAML, parted by '---'; with -o json a list is {"items": [...]}.
'novacron apply' takes either, of virtual machines, images and nodes.`
	cmd.Example = `  novacron get vm web > web.yaml
  novacron get nodes -o json`
	cmd.ValidArgsFunction = a.completeKinds
	return cmd
}

// documentFormat is YAML unless something else is asked for.
func (a *app) documentFormat(cmd *cobra.Command, kind string) (output.Format, error) {
	f := a.printer().Format
	switch {
	case f.ForPrograms():
		return f, nil
	case cmd.Flags().Changed("output"):
		return f, usage(cmd, "documents are printed with -o yaml or -o json; for a table: novacron %s list", strings.TrimSuffix(kind, "s"))
	default:
		return output.YAML, nil
	}
}

// printDocuments prints what apply can read.
func (a *app) printDocuments(f output.Format, docs []any, one bool) error {
	p := output.Printer{Out: a.out, Format: f}
	switch {
	case f == output.JSON && one:
		return p.Document(docs[0])
	case f == output.JSON:
		return p.Document(map[string]any{"items": docs})
	}
	for i, d := range docs {
		if i > 0 {
			fmt.Fprintln(a.out, "---")
		}
		if err := p.Document(d); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) completeKinds(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return slices.Sorted(maps.Keys(documentKinds)), cobra.ShellCompDirectiveNoFileComp
	}
	switch strings.TrimSuffix(args[0], "s") {
	case "vm":
		return a.completeVMs(cmd, args, word)
	case "image":
		return a.completeImages(cmd, args, word)
	case "node":
		return a.completeNodes(cmd, args, word)
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
