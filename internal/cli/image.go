package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func newImage(a *app) *cobra.Command {
	cmd := group(a, "image", "What virtual machines are made from",
		newImageImport(a), newImageList(a), newImageShow(a), newImageDelete(a))
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

// importFlags name the files of a new image.
type importFlags struct{ disk, kernel, initrd, cmdline string }

// part is one file to upload.
type part struct{ role, path string }

func (f importFlags) plan(cmd *cobra.Command) (kind string, parts []part, err error) {
	switch {
	case f.disk != "" && f.kernel == "" && f.initrd == "" && f.cmdline == "":
		return "disk", []part{{"disk", f.disk}}, nil
	case f.disk == "" && f.kernel != "" && f.initrd != "":
		return "kernel", []part{{"kernel", f.kernel}, {"initrd", f.initrd}}, nil
	default:
		return "", nil, usage(cmd, "an image is --disk FILE, or --kernel FILE --initrd FILE with an optional --cmdline TEXT")
	}
}

func newImageImport(a *app) *cobra.Command {
	var f importFlags
	cmd := leaf("import NAME", "Make an image of files of this machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		kind, parts, err := f.plan(cmd)
		if err != nil {
			return err
		}
		for _, p := range parts {
			// before anything is made on the server
			if _, err := os.Stat(p.path); err != nil {
				return usage(cmd, "--%s: %s", p.role, err)
			}
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		made, err := c.Images.Create(cmd.Context(), api.ImageCreate{Name: args[0], Type: kind, Cmdline: f.cmdline})
		if err != nil {
			return err
		}
		img, err := a.upload(cmd.Context(), c, made, parts)
		if err != nil {
			a.removeHalf(cmd.Context(), c, made)
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(img)
		}
		fmt.Fprintf(a.out, "image %s: %s, %s\n", img.Name, img.Status.State, imageSize(img))
		return nil
	})
	cmd.Example = `  novacron image import debian --disk debian-12-generic-amd64.qcow2
  novacron image import tiny --kernel vmlinuz --initrd initrd.gz --cmdline 'console=ttyS0'`
	cmd.Flags().StringVar(&f.disk, "disk", "", "disk image `file` (qcow2 or raw)")
	cmd.Flags().StringVar(&f.kernel, "kernel", "", "kernel `file`")
	cmd.Flags().StringVar(&f.initrd, "initrd", "", "initial file system `file` for the kernel")
	cmd.Flags().StringVar(&f.cmdline, "cmdline", "", "the kernel's command line")
	return cmd
}

func (a *app) upload(ctx context.Context, c *client.Client, img api.Image, parts []part) (api.Image, error) {
	show := newProgress(a.err, isTerminal(a.err))
	defer show.done()
	for _, p := range parts {
		var total int64
		if info, err := os.Stat(p.path); err == nil {
			total = info.Size()
		}
		shown := -1
		var err error
		img, err = c.Images.UploadFile(ctx, img.ID, p.role, p.path, func(sent int64) {
			percent := int(sent * 100 / max(total, 1))
			if percent != shown {
				shown = percent
				show.note(percent, fmt.Sprintf("%s %s of %s", p.role, unit.FormatBytes(sent), unit.FormatBytes(total)))
			}
		})
		if err != nil {
			return img, err
		}
	}
	return img, nil
}

// cleanupTimeout bounds what is tidied up after an interrupt.
const cleanupTimeout = 10 * time.Second

// removeHalf deletes an image whose upload failed, so that its name is free
// again. That it cannot is said, and the upload's error stays the command's.
func (a *app) removeHalf(ctx context.Context, c *client.Client, img api.Image) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	_, err := c.Images.Delete(ctx, img.ID)
	if err != nil && client.CodeOf(err) != string(errs.NotFound) {
		fmt.Fprintf(a.err, "the unfinished image is still there; remove it with: novacron image delete %s\n", img.ID)
	}
}
