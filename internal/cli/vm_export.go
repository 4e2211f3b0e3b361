package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	diskformat "github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/domain/image/ova"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// exportVMFlags say where a machine is written to, and how.
type exportVMFlags struct{ ova, qcow2, raw string }

// folder is where single disks go; empty for an appliance.
func (f exportVMFlags) folder() string { return f.qcow2 + f.raw }

func (f exportVMFlags) check(cmd *cobra.Command) error {
	n := 0
	for _, s := range []string{f.ova, f.qcow2, f.raw} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return usage(cmd, "say how it is written: --ova FILE, --qcow2 DIR or --raw DIR")
	}
	return nil
}

func newVMExport(a *app) *cobra.Command {
	var f exportVMFlags
	cmd := leaf("export NAME", "Write a stopped virtual machine to this machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		v, err := c.VMs.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if f.ova != "" {
			return a.exportAppliance(cmd.Context(), c, v, f.ova)
		}
		return a.exportDisks(cmd.Context(), c, v, f)
	})
	cmd.Long = `Write a stopped virtual machine to this machine: as an appliance (OVA), which
'novacron vm import' and other programs read, or its disks as they are.

Each disk is captured as an image, NAME-export-SLOT, read from there, and the image
deleted. A file is there whole or not at all. The same command goes on with an export
that broke off, unless the machine was started meanwhile; what is left on the server
until then is said. A capture that takes long is a job: 'novacron job cancel' ends it.`
	cmd.Example = `  novacron vm export web --ova web.ova
  novacron vm export web --raw disks/`
	cmd.Flags().StringVar(&f.ova, "ova", "", "`file` for an appliance, with its disks as VMDK")
	cmd.Flags().StringVar(&f.qcow2, "qcow2", "", "`folder` for its disks as qcow2")
	cmd.Flags().StringVar(&f.raw, "raw", "", "`folder` for its disks as raw files, sparse")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// exportDisks writes each disk to a file of its own.
func (a *app) exportDisks(ctx context.Context, c *client.Client, v api.VM, f exportVMFlags) error {
	if err := os.MkdirAll(f.folder(), 0o750); err != nil {
		return errs.New(errs.HostFailure, "the folder %s cannot be made", f.folder()).Because(err)
	}
	for _, d := range v.Spec.Disks {
		base := filepath.Join(f.folder(), fmt.Sprintf("%s-disk-%d", v.Name, d.Slot))
		path := base + ".qcow2"
		if err := a.fetchDisk(ctx, c, v, d, path); err != nil {
			return err
		}
		if f.raw != "" {
			if err := rewrite(ctx, path, base+".raw", writeRaw); err != nil {
				return err
			}
			path = base + ".raw"
		}
		fmt.Fprintf(a.out, "VM %s: disk %d in %s\n", output.Clean(v.Name), d.Slot, output.Clean(path))
	}
	return nil
}

// fetchDisk captures a disk and reads it into a file.
func (a *app) fetchDisk(ctx context.Context, c *client.Client, v api.VM, d api.VMDisk, path string) error {
	img, err := a.captured(ctx, c, v, d)
	if err == nil {
		err = a.download(ctx, c, img, part{"disk", path})
	}
	if err == nil {
		_, err = c.Images.Delete(ctx, img.ID)
	}
	if err != nil && img.ID != "" {
		name := output.Clean(img.Name)
		fmt.Fprintf(a.err, "the image %s is left on the server: the same command goes on with it, 'novacron image delete %s' gives it up\n", name, name)
	}
	return err
}

// captured gives the image of a disk: that of an export that broke off, if the machine
// has been at rest since, or a new one.
func (a *app) captured(ctx context.Context, c *client.Client, v api.VM, d api.VMDisk) (api.Image, error) {
	name := strings.TrimRight(clip(v.Name, 45), "-") + "-export-" + strconv.Itoa(d.Slot)
	old, err := c.Images.Get(ctx, name)
	if err == nil {
		if old, err = a.converted(ctx, c, old); err == nil && old.Status.State == "ready" && v.Status.Since.Before(old.CreatedAt) {
			return old, nil
		}
		err = a.replace(ctx, c, old)
	}
	if err != nil && client.CodeOf(err) != string(errs.NotFound) {
		return old, err
	}
	return a.capture(ctx, c, v, d, name)
}

// capture makes an image of a disk; none is left where that fails and a server is there.
func (a *app) capture(ctx context.Context, c *client.Client, v api.VM, d api.VMDisk, name string) (api.Image, error) {
	made, err := c.Images.Create(ctx, api.ImageCreate{Name: name, Type: "disk"})
	if err != nil {
		return made, err
	}
	ch, err := c.Images.Capture(ctx, made.ID, api.ImageCapture{VM: v.ID, Disk: strconv.Itoa(d.Slot)})
	if err == nil {
		made.Status.Job = ch.Job.ID
		made, err = a.converted(ctx, c, made)
	}
	if err == nil || ctx.Err() != nil {
		return made, err
	}
	if _, kept := c.Images.Delete(ctx, made.ID); kept == nil {
		made = api.Image{} // it was empty
	}
	return made, err
}

// replace deletes the image of an earlier export, and waits until its name is free.
func (a *app) replace(ctx context.Context, c *client.Client, old api.Image) error {
	ch, err := c.Images.Delete(ctx, old.ID)
	if err != nil || ch.Job == nil {
		return err
	}
	_, err = c.WaitJob(ctx, ch.Job.ID, nil)
	return err
}

// rewrite writes a disk in another form: whole or not at all. The file it came in is
// removed.
func rewrite(ctx context.Context, from, to string, as func(context.Context, *os.File, diskformat.Layer) error) error {
	in, err := os.Open(from)
	if err != nil {
		return errs.New(errs.HostFailure, "%s cannot be read", from).Because(err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return errs.New(errs.HostFailure, "%s cannot be read", from).Because(err)
	}
	l, err := diskformat.OpenQCOW2(in, info.Size(), nil, nil) // as servers write them: never zstd
	if err != nil {
		return err
	}
	err = whole(to, func(out *os.File) error { return as(ctx, out, l) })
	if err == nil {
		err = os.Remove(from)
	}
	return err
}

// whole makes a file that is there whole or not at all.
func whole(path string, write func(*os.File) error) error {
	out, err := os.Create(path + ".part")
	if err != nil {
		return errs.New(errs.HostFailure, "%s cannot be written", path).Because(err)
	}
	err = write(out)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err == nil {
		return nil
	}
	_ = os.Remove(out.Name())
	if errs.CodeOf(err) != errs.Internal {
		return err
	}
	return errs.New(errs.HostFailure, "%s cannot be written", path).Because(err)
}

// writeRaw writes a disk as it is, with holes where it is zero.
func writeRaw(ctx context.Context, out *os.File, l diskformat.Layer) error {
	if err := out.Truncate(l.Bytes()); err != nil {
		return err
	}
	return diskformat.Flatten(l, func(at int64, p []byte) error {
		if ctx.Err() != nil {
			return errs.New(errs.Cancelled, "the export was interrupted").Because(ctx.Err())
		}
		_, err := out.WriteAt(p, at)
		return err
	})
}

// exportAppliance writes the machine as an OVA.
func (a *app) exportAppliance(ctx context.Context, c *client.Client, v api.VM, path string) error {
	if err := a.startsFromDisk(ctx, c, v); err != nil {
		return err
	}
	var disks []ova.Out
	var files []string
	for _, d := range v.Spec.Disks {
		file := fmt.Sprintf("%s.disk-%d", path, d.Slot)
		if err := a.fetchDisk(ctx, c, v, d, file+".qcow2"); err != nil {
			return err
		}
		name := fmt.Sprintf("%s-disk-%d.vmdk", v.Name, d.Slot)
		err := rewrite(ctx, file+".qcow2", file+".vmdk", func(ctx context.Context, out *os.File, l diskformat.Layer) error {
			return diskformat.WriteVMDK(stopped{ctx, out}, l, name)
		})
		if err != nil {
			return err
		}
		info, err := os.Stat(file + ".vmdk")
		if err != nil {
			return errs.New(errs.HostFailure, "%s.vmdk cannot be read", file).Because(err)
		}
		disks, files = append(disks, ova.Out{File: name, Size: info.Size(), Bytes: int64(d.SizeBytes)}), append(files, file+".vmdk")
	}
	text := ova.Describe(ova.Machine{Name: v.Name, CPUs: v.Spec.CPUs, MemoryBytes: int64(v.Spec.MemoryBytes), NICs: len(v.Spec.NICs), UEFI: startsByUEFI(v)}, disks)
	err := whole(path, func(out *os.File) error { return packAppliance(ctx, out, v.Name, text, disks, files) })
	for _, f := range files {
		_ = os.Remove(f)
	}
	if err == nil {
		fmt.Fprintf(a.out, "VM %s: in %s\n", output.Clean(v.Name), output.Clean(path))
	}
	return err
}

// startsByUEFI: with secure boot too, which no description can say.
func startsByUEFI(v api.VM) bool {
	return v.Spec.Machine != nil && (v.Spec.Machine.Firmware == vm.FirmwareUEFI || v.Spec.Machine.Firmware == vm.FirmwareSecure)
}

// startsFromDisk refuses an appliance of a machine whose kernel is given to it: no
// description can say so.
func (a *app) startsFromDisk(ctx context.Context, c *client.Client, v api.VM) error {
	if len(v.Spec.Disks) == 0 {
		return errs.New(errs.Unsupported, "VM %q has no disks: there is nothing to write", v.Name)
	}
	if v.Spec.Image == "" {
		return nil
	}
	img, err := c.Images.Get(ctx, v.Spec.Image)
	if err == nil && img.Spec.Type == "kernel" {
		return errs.New(errs.Unsupported, "VM %q starts from the kernel of image %q, which an appliance cannot have: write its disks with --qcow2 or --raw", v.Name, img.Name)
	}
	return err
}

// stopped is a writer that ends with its context.
type stopped struct {
	ctx context.Context //nolint:containedctx // io.Writer has no other way to end
	w   io.Writer
}

// Write implements io.Writer.
func (s stopped) Write(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, errs.New(errs.Cancelled, "the export was interrupted").Because(err)
	}
	return s.w.Write(p)
}
