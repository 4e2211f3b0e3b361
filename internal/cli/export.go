package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// exported is one document of an export.
type exported struct {
	kind, name string
	doc        any
}

func newExport(a *app) *cobra.Command {
	var dir string
	var content bool
	cmd := leaf("export", "Print the whole project as documents", names(), func(cmd *cobra.Command, _ []string) error {
		format, err := a.documentFormat(cmd, "vm")
		if err != nil {
			return err
		}
		if content && dir == "" {
			return usage(cmd, "--images writes files: say where with --dir FOLDER")
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		docs, images, err := a.exportAll(cmd.Context(), c)
		if err != nil {
			return err
		}
		if content { // first: documents are there when their content is
			if err := a.exportContent(cmd.Context(), c, dir, images); err != nil {
				return err
			}
		}
		if dir != "" {
			return a.exportTo(dir, format, docs)
		}
		plain := make([]any, len(docs))
		for i, d := range docs {
			plain[i] = d.doc
		}
		return a.printDocuments(format, plain, false)
	})
	cmd.Long = `Print the images and virtual machines of the project as documents, such that
'novacron apply' of them makes the same project elsewhere. What belongs to these
objects alone is left out: ids, addresses, slots, revisions, status, and the node
they are on.

Documents of images name their content by its SHA-256 and do not hold it. With
--images the content is written too, into the folder "images" in that of --dir, and
'novacron apply' of the folder imports it; without it, import the images first, under
the same names. What came of a file goes on with the same command after a break.

What is on disks is not exported. Nodes are not part of a project.`
	cmd.Example = `  novacron export > project.yaml
  novacron export --dir project/
  novacron export --dir project/ --images && novacron --context other apply -f project/ --wait`
	cmd.Flags().StringVar(&dir, "dir", "", "write a file for each object into this `folder`")
	cmd.Flags().BoolVar(&content, "images", false, "write what is in the images, too")
	return cmd
}

// exportAll reads the project. What is on its way in or out is left out, and said.
func (a *app) exportAll(ctx context.Context, c *client.Client) (docs []exported, images []api.Image, err error) {
	skip := func(kind, name, why string) {
		fmt.Fprintf(a.err, "%s %s is left out: it is %s\n", kind, output.Clean(name), why)
	}
	for i, err := range c.Images.All(ctx, client.ListOptions{Sort: "name"}) {
		switch {
		case err != nil:
			return nil, nil, err
		case i.Status.State != "ready":
			skip("image", i.Name, i.Status.State)
		default:
			docs = append(docs, exported{"image", i.Name, i.Document()})
			images = append(images, i)
		}
	}
	for v, err := range c.VMs.All(ctx, client.ListOptions{Sort: "name"}) {
		switch {
		case err != nil:
			return nil, nil, err
		case v.Status.State == "deleting":
			skip("vm", v.Name, v.Status.State)
		default:
			docs = append(docs, exported{"vm", v.Name, v.Document()})
		}
	}
	return docs, images, nil
}

// exportTo writes one file for each object. Files of objects that are gone are
// named and left.
func (a *app) exportTo(dir string, f output.Format, docs []exported) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return errs.New(errs.HostFailure, "the folder %s cannot be made", dir).Because(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errs.New(errs.HostFailure, "the folder %s cannot be opened", dir).Because(err)
	}
	defer func() { _ = root.Close() }()
	written := map[string]bool{}
	for _, d := range docs {
		text, err := f.Text(d.doc)
		if err != nil {
			return err
		}
		name := d.kind + "-" + d.name + "." + string(f)
		if err := replaceFile(root, name, text); err != nil {
			return errs.New(errs.HostFailure, "%s cannot be written", filepath.Join(dir, name)).Because(err)
		}
		written[name] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errs.New(errs.HostFailure, "the folder %s cannot be read", dir).Because(err)
	}
	for _, e := range entries {
		if isDocument(e) && !written[e.Name()] {
			fmt.Fprintf(a.err, "%s is not of this export, and is left as it is\n", output.Clean(filepath.Join(dir, e.Name())))
		}
	}
	fmt.Fprintf(a.out, "%d documents in %s\n", len(docs), output.Clean(dir))
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(root *os.Root, name string, text []byte) error {
	next := "." + name + ".new"
	if err := root.WriteFile(next, text, 0o640); err != nil {
		return err
	}
	return root.Rename(next, name)
}
