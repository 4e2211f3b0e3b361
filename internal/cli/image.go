package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newImage(a *app) *cobra.Command {
	cmd := group(a, "image", "What virtual machines are made from",
		newImageImport(a), newImageExport(a), newImageCapture(a), newImageList(a), newImageShow(a), newImageAlias(a), newImageDelete(a))
	cmd.Aliases = []string{"images"}
	return cmd
}

func (a *app) imageColumns() []output.Column[api.Image] {
	now := a.clock.Now()
	return []output.Column[api.Image]{
		{Title: "name", Cell: func(i api.Image) string { return i.Name }},
		{Title: "type", Cell: func(i api.Image) string { return i.Spec.Type }},
		{Title: "state", State: true, Cell: func(i api.Image) string { return i.Status.State }},
		{Title: "size", Cell: imageSize},
		{Title: "age", Cell: func(i api.Image) string { return output.Age(now, i.CreatedAt) }},
		{Title: "aliases", Cell: func(i api.Image) string { return strings.Join(i.Spec.Aliases, ", ") }},
		{Title: "files", Wide: true, Cell: imageFiles},
		{Title: "id", Wide: true, Cell: func(i api.Image) string { return i.ID }},
	}
}

func imageSize(i api.Image) string {
	var n api.Bytes
	for _, f := range i.Status.Files {
		n += f.SizeBytes
	}
	return size(n)
}

func imageFiles(i api.Image) string {
	roles := make([]string, len(i.Status.Files))
	for k, f := range i.Status.Files {
		roles[k] = f.Role + " (" + f.Format + ")"
	}
	return strings.Join(roles, ", ")
}

func newImageList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List images", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		o, err := l.options(cmd)
		if err != nil {
			return err
		}
		items, err := client.Collect(c.Images.All(cmd.Context(), o))
		if err != nil {
			return err
		}
		return output.List(a.printer(), items, a.imageColumns())
	})
	cmd.Aliases = []string{"ls"}
	l.add(cmd)
	return cmd
}

func newImageShow(a *app) *cobra.Command {
	cmd := leaf("show NAME", "Show one image", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		i, err := c.Images.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(i, a.imagePairs(i))
	})
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}

func (a *app) imagePairs(i api.Image) []output.Pair {
	pairs := []output.Pair{
		{Key: "name", Value: i.Name},
		{Key: "id", Value: i.ID},
		{Key: "state", Value: i.Status.State},
		{Key: "aliases", Value: strings.Join(i.Spec.Aliases, ", ")},
		{Key: "type", Value: i.Spec.Type},
		{Key: "cmdline", Value: i.Spec.Cmdline},
		{Key: "job", Value: i.Status.Job},
		{Key: "created", Value: ago(a.clock.Now(), i.CreatedAt)},
	}
	for _, f := range i.Status.Files {
		value := size(f.SizeBytes) + ", " + f.Format
		if f.VirtualBytes > 0 {
			value += ", holds " + size(f.VirtualBytes)
		}
		pairs = append(pairs, output.Pair{Key: f.Role, Value: value}, output.Pair{Key: "  sha256", Value: f.SHA256})
		if f.Source != nil {
			pairs = append(pairs, output.Pair{Key: "  from", Value: f.Source.Format + ", sha256 " + f.Source.SHA256})
		}
	}
	return pairs
}

func newImageDelete(a *app) *cobra.Command {
	var w *waitFlags
	cmd := leaf("delete NAME", "Delete an image", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		ch, err := c.Images.Delete(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.settle(cmd, c, "delete "+args[0], ch, w)
	})
	cmd.Aliases = []string{"rm"}
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}
