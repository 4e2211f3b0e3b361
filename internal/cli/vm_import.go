package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/domain/image/ova"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// appliance is an OVA file that was looked into.
type appliance struct {
	archive *ova.Archive
	machine ova.Machine
	// images are the names of the images its disks become; empty for an empty disk.
	images []string
}

// importVMFlags say what becomes of an appliance.
type importVMFlags struct {
	name, node    string
	dryRun, start bool
}

func newVMImport(a *app) *cobra.Command {
	var f importVMFlags
	var w *waitFlags
	cmd := leaf("import FILE", "Make a virtual machine of an appliance (OVA)", names("FILE"), func(cmd *cobra.Command, args []string) error {
		file, err := os.Open(args[0])
		if err != nil {
			return usage(cmd, "%s", err)
		}
		defer func() { _ = file.Close() }()
		app, err := a.openAppliance(cmd.Context(), file)
		if err != nil {
			return err
		}
		req, err := app.request(f)
		if err != nil {
			return err
		}
		for _, ignored := range app.machine.Ignored {
			fmt.Fprintf(a.err, "left out: %s\n", output.Clean(ignored))
		}
		if f.dryRun {
			format, err := a.documentFormat(cmd, "vm")
			if err != nil {
				return err
			}
			return a.printDocuments(format, []any{documentOf(req)}, true)
		}
		return a.importAppliance(cmd, app, req, w)
	})
	cmd.Long = `Make a virtual machine of an appliance: an OVA file of this machine.

The archive is looked into before anything is sent: an entry with a path, a link, a
name that comes twice, content that is not what the manifest says, or no manifest
are refused. Each of its disks becomes an image, NAME-disk-0 and so on, and the machine
is made from these with the CPUs, memory and network interfaces that the appliance
describes. What it describes besides is left out, and said. --dry-run prints the
machine's document and makes nothing.

The same command goes on with an import that broke off. The images stay with the
machine: delete them when it is deleted.`
	cmd.Example = `  novacron vm import web.ova --dry-run
  novacron vm import web.ova --name web --start`
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "`name` of the machine; made from the appliance's by default")
	fl.StringVar(&f.node, "node", "", "place it on this `node` only")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the machine's document, and make nothing")
	fl.BoolVar(&f.start, "start", false, "start it once it is made")
	w = a.addWait(cmd)
	mustComplete(cmd.RegisterFlagCompletionFunc("node", a.completeNodes))
	return cmd
}

// openAppliance reads what an OVA file describes, and holds its disks against the
// manifest.
func (a *app) openAppliance(ctx context.Context, file *os.File) (*appliance, error) {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, errs.New(errs.InvalidImage, "%s is not a file", file.Name()).Because(err)
	}
	archive, err := ova.Open(file, info.Size())
	if err != nil {
		return nil, err
	}
	m, err := archive.Machine()
	if err != nil {
		return nil, err
	}
	show := newProgress(a.err, isTerminal(a.err))
	defer show.done()
	for _, d := range m.Disks {
		e, ok := archive.Entry(d.File)
		if !ok {
			continue
		}
		show.note(0, "reading "+output.Clean(e.Name))
		if err := archive.Verify(e, func(r io.Reader) io.Reader { return untilDone{ctx, r} }); err != nil {
			return nil, err
		}
	}
	return &appliance{archive: archive, machine: m}, nil
}

// request makes the creation of an appliance's machine.
func (p *appliance) request(f importVMFlags) (api.VMCreate, error) {
	name := f.name
	if name == "" {
		name = asName(p.machine.Name)
	}
	if err := id.CheckName("name", name); err != nil {
		return api.VMCreate{}, err
	}
	req := api.VMCreate{Name: name, CPUs: p.machine.CPUs, MemoryBytes: api.Bytes(p.machine.MemoryBytes), Node: f.node, Start: f.start}
	if p.machine.UEFI {
		req.Machine = &api.VMMachine{Firmware: vm.FirmwareUEFI}
	}
	for i, d := range p.machine.Disks {
		of := ""
		if d.File != "" {
			of = strings.TrimRight(clip(name, 50), "-") + "-disk-" + strconv.Itoa(i)
		}
		p.images = append(p.images, of)
		req.Disks = append(req.Disks, api.VMDiskCreate{SizeBytes: api.Bytes(d.Bytes), Image: of})
	}
	if len(req.Disks) > 0 { // the first is the machine's image
		req.Image, req.Disks[0].Image = req.Disks[0].Image, ""
	}
	for range p.machine.NICs {
		req.NICs = append(req.NICs, api.VMNICCreate{})
	}
	return req, nil
}

// asName makes a name of ours of one of anybody's.
func asName(text string) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		default:
			return '-'
		}
	}, strings.ToLower(text))
	words := strings.FieldsFunc(plain, func(r rune) bool { return r == '-' })
	return strings.TrimRight(clip(strings.Join(words, "-"), 63), "-")
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// documentOf is the document of a machine that would be made.
func documentOf(req api.VMCreate) api.VMDocument {
	d := api.VMDocument{DocumentMeta: api.DocumentMeta{Kind: "vm", Name: req.Name}}
	d.Spec.CPUs, d.Spec.MemoryBytes = &req.CPUs, &req.MemoryBytes
	d.Spec.Machine = req.Machine
	if req.Image != "" {
		d.Spec.Image = &req.Image
	}
	disks, nics := []api.VMDiskDocument{}, []api.VMNICDocument{}
	for _, disk := range req.Disks {
		disks = append(disks, api.VMDiskDocument{SizeBytes: disk.SizeBytes, Image: disk.Image})
	}
	for range req.NICs {
		nics = append(nics, api.VMNICDocument{})
	}
	d.Spec.Disks, d.Spec.NICs = &disks, &nics
	return d
}

// importAppliance sends the disks and makes the machine.
func (a *app) importAppliance(cmd *cobra.Command, p *appliance, req api.VMCreate, w *waitFlags) error {
	c, err := a.connect(cmd)
	if err != nil {
		return err
	}
	for i, of := range p.images {
		if of == "" {
			continue
		}
		img, err := a.importDisk(cmd.Context(), c, p, of, p.machine.Disks[i])
		if err != nil {
			return err
		}
		if f := img.Status.Files; len(f) == 1 && f[0].VirtualBytes >= req.Disks[i].SizeBytes {
			req.Disks[i].SizeBytes = f[0].VirtualBytes // a disk is never smaller than its image
		}
	}
	ch, err := c.VMs.Create(cmd.Context(), req)
	if err != nil {
		return err
	}
	return a.settle(cmd, c, "import "+req.Name, ch, w)
}

// importDisk makes an image of a disk, or finds the one that an earlier import made
// of the same content.
func (a *app) importDisk(ctx context.Context, c *client.Client, p *appliance, name string, d ova.Disk) (api.Image, error) {
	e, _ := p.archive.Entry(d.File)
	made, fresh, err := a.openImage(ctx, c, api.ImageCreate{Name: name, Type: "disk"})
	if client.CodeOf(err) == string(errs.AlreadyExists) {
		made, err = c.Images.Get(ctx, name)
	}
	if err != nil {
		return made, err
	}
	if made.Status.Job != "" {
		return a.converted(ctx, c, made)
	}
	img, err := a.send(ctx, c, made, "disk", p.archive.Content(e), e.Size)
	if err == nil {
		img, err = a.converted(ctx, c, img)
	}
	if err != nil {
		a.leaveHalf(ctx, c, made, fresh, err)
	}
	return img, err
}

// send uploads some content and shows how far it is.
func (a *app) send(ctx context.Context, c *client.Client, img api.Image, role string, content io.ReaderAt, total int64) (api.Image, error) {
	show := newProgress(a.err, isTerminal(a.err))
	defer show.done()
	show.note(0, output.Clean(img.Name)+": hashing "+size(api.Bytes(total)))
	m := newTransfer(a.clock, total)
	return c.Images.Upload(ctx, img.ID, role, content, total, func(sent int64) {
		if m.at(sent) {
			show.note(int(sent*100/max(total, 1)), output.Clean(img.Name)+" "+m.line())
		}
	})
}
