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

// exportFlags name the files that an image is written to.
type exportFlags struct{ disk, kernel, initrd, iso string }

func (f exportFlags) parts(cmd *cobra.Command) (parts []part, err error) {
	for _, p := range []part{{"disk", f.disk}, {"iso", f.iso}, {"kernel", f.kernel}, {"initrd", f.initrd}} {
		if p.path != "" {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return nil, usage(cmd, "say what to write where: --disk FILE, --iso FILE, or --kernel FILE and --initrd FILE")
	}
	return parts, nil
}

func newImageExport(a *app) *cobra.Command {
	var f exportFlags
	cmd := leaf("export NAME", "Write an image's files to this machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		parts, err := f.parts(cmd)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		img, err := c.Images.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		for _, p := range parts {
			if err := a.download(cmd.Context(), c, img, p); err != nil {
				return err
			}
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(img)
		}
		for _, p := range parts {
			fmt.Fprintf(a.out, "image %s: %s in %s\n", output.Clean(img.Name), p.role, output.Clean(p.path))
		}
		return nil
	})
	cmd.Long = `Write an image's files to this machine, as they were imported, byte for byte.

A file is there whole or not at all: until then, what came is in FILE.part, and the
same command goes on with it. What came is held against its SHA-256. A file that is
there is written over.`
	cmd.Example = `  novacron image export debian --disk debian.qcow2
  novacron image export tiny --kernel vmlinuz --initrd initrd.gz`
	cmd.Flags().StringVar(&f.disk, "disk", "", "`file` for its disk")
	cmd.Flags().StringVar(&f.iso, "iso", "", "`file` for its CD")
	cmd.Flags().StringVar(&f.kernel, "kernel", "", "`file` for its kernel")
	cmd.Flags().StringVar(&f.initrd, "initrd", "", "`file` for its initial file system")
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}

// download writes one file of an image and shows how far it is.
func (a *app) download(ctx context.Context, c *client.Client, img api.Image, p part) error {
	show := newProgress(a.err, isTerminal(a.err))
	defer show.done()
	var total int64
	for _, f := range img.Status.Files {
		if f.Role == p.role {
			total = int64(f.SizeBytes)
		}
	}
	m := newTransfer(a.clock, total)
	_, err := c.Images.DownloadFile(ctx, img.ID, p.role, p.path, func(got int64) {
		if m.at(got) {
			show.note(int(got*100/max(total, 1)), p.role+" "+m.line())
		}
	})
	if code := client.CodeOf(err); code == client.CodeUnreachable || code == client.CodeInterrupted {
		fmt.Fprintf(a.err, "what came is in %s: the same command goes on with it\n", output.Clean(p.path+".part"))
	}
	return err
}

// contentFolder is the folder in that of an export that holds the content of images:
// each file under its SHA-256.
const contentFolder = "images"

// exportContent writes what the images of a project are made of. Content that is there
// already, from an earlier export, is held against its name, and read again if it is
// not that.
func (a *app) exportContent(ctx context.Context, c *client.Client, dir string, images []api.Image) error {
	folder := filepath.Join(dir, contentFolder)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return errs.New(errs.HostFailure, "the folder %s cannot be made", folder).Because(err)
	}
	var files int
	var bytes api.Bytes
	seen := map[string]bool{}
	for _, img := range images {
		for _, f := range img.Status.Files {
			if seen[f.SHA256] {
				continue
			}
			seen[f.SHA256] = true
			files, bytes = files+1, bytes+f.SizeBytes
			path := filepath.Join(folder, f.SHA256)
			if sum, err := hashFile(ctx, path); err == nil && sum == f.SHA256 {
				continue
			}
			fmt.Fprintf(a.err, "image %s:\n", output.Clean(img.Name))
			if err := a.download(ctx, c, img, part{f.Role, path}); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(a.out, "%d files of images (%s) in %s\n", files, size(bytes), output.Clean(folder))
	return nil
}
