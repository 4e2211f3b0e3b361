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
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// importFlags name the files of a new image.
type importFlags struct {
	disk, kernel, initrd, iso, cmdline string
	url, sha256                        string
	aliases                            []string
}

// part is one file to upload, or to be fetched when its path is a URL.
type part struct{ role, path string }

func (p part) remote() bool {
	return strings.HasPrefix(p.path, "http://") || strings.HasPrefix(p.path, "https://")
}

func (f importFlags) plan(cmd *cobra.Command) (kind string, parts []part, err error) {
	if f.url != "" && f.disk == "" {
		f.disk = f.url
		if p := (part{"disk", f.url}); !p.remote() {
			return "", nil, usage(cmd, "--url is http://... or https://...")
		}
	} else if f.url != "" {
		return "", nil, usage(cmd, "--url is the disk's: leave --disk out")
	}
	var given []string
	for _, of := range []struct{ flag, value string }{
		{"disk", f.disk}, {"kernel", f.kernel}, {"initrd", f.initrd}, {"iso", f.iso}, {"cmdline", f.cmdline},
	} {
		if of.value != "" {
			given = append(given, of.flag)
		}
	}
	switch strings.Join(given, " ") {
	case "disk":
		return "disk", []part{{"disk", f.disk}}, nil
	case "iso":
		return "iso", []part{{"iso", f.iso}}, nil
	case "kernel initrd", "kernel initrd cmdline":
		return "kernel", []part{{"kernel", f.kernel}, {"initrd", f.initrd}}, nil
	default:
		return "", nil, usage(cmd, "an image is --disk FILE, or --iso FILE, or --kernel FILE --initrd FILE with an optional --cmdline TEXT")
	}
}

// check refuses what cannot be sent, before anything is made on the server.
func (f importFlags) check(cmd *cobra.Command, parts []part) error {
	if f.sha256 != "" && (len(parts) != 1 || !parts[0].remote()) {
		return usage(cmd, "--sha256 is of one file that is read from a URL; files of this machine are hashed here")
	}
	for _, p := range parts {
		if p.remote() {
			continue
		}
		if _, err := os.Stat(p.path); err != nil {
			return usage(cmd, "--%s: %s", p.role, err)
		}
	}
	return nil
}

func newImageImport(a *app) *cobra.Command {
	var f importFlags
	cmd := leaf("import NAME", "Make an image of files of this machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		kind, parts, err := f.plan(cmd)
		if err != nil {
			return err
		}
		if err := f.check(cmd, parts); err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if err := freeAliases(cmd.Context(), c, f.aliases); err != nil {
			return err
		}
		made, fresh, err := a.openImage(cmd.Context(), c, api.ImageCreate{Name: args[0], Type: kind, Cmdline: f.cmdline})
		if err != nil {
			return err
		}
		img, err := a.upload(cmd.Context(), c, made, parts, f.sha256)
		if err != nil {
			a.leaveHalf(cmd.Context(), c, made, fresh, err)
			return err
		}
		if img, err = setAliases(cmd.Context(), c, img, f.aliases); err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(img)
		}
		fmt.Fprintf(a.out, "image %s: %s, %s\n", img.Name, img.Status.State, imageSize(img))
		return nil
	})
	cmd.Long = `Make an image of files of this machine.

An upload that breaks off goes on by itself once a server answers again, where it
broke off. One that was interrupted is gone on with by the same command with the
same files: what arrived is kept for 24 hours. The files are hashed before they
are sent, and are the image's only when they arrive as they are here.

A disk in another program's format (VMDK, VHD, VHDX, VDI) is converted to qcow2 on the
server, once it is there.

Instead of a FILE a URL will do (--url is short for that of a disk): a server reads
the file from there, and goes on after a break. --sha256 says what it must be.`
	cmd.Example = `  novacron image import debian --disk debian-12-generic-amd64.qcow2
  novacron image import debian --url https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-generic-amd64.qcow2
  novacron image import tiny --kernel vmlinuz --initrd initrd.gz --cmdline 'console=ttyS0'`
	cmd.Flags().StringVar(&f.disk, "disk", "", "disk image `file` (qcow2, raw, VMDK, VHD, VHDX or VDI)")
	cmd.Flags().StringVar(&f.url, "url", "", "`URL` of a disk image, which a server reads from there")
	cmd.Flags().StringVar(&f.sha256, "sha256", "", "what a file that is read from a URL must be, as a `sum` in hexadecimal digits")
	cmd.Flags().StringVar(&f.iso, "iso", "", "`file` of a CD (ISO 9660), which guests find in their drive")
	cmd.Flags().StringVar(&f.kernel, "kernel", "", "kernel `file`")
	cmd.Flags().StringVar(&f.initrd, "initrd", "", "initial file system `file` for the kernel")
	cmd.Flags().StringSliceVar(&f.aliases, "alias", nil, "a further `name`, moved to the image once it is ready; may be repeated")
	cmd.Flags().StringVar(&f.cmdline, "cmdline", "", "the kernel's command line")
	return cmd
}

// converted waits for the job that brings an image a file, or makes a disk of another
// program's format one that guests can use, if there is one.
func (a *app) converted(ctx context.Context, c *client.Client, img api.Image) (api.Image, error) {
	if img.Status.Job == "" || img.Status.State != "uploading" {
		return img, nil
	}
	show := newProgress(a.err, isTerminal(a.err))
	_, err := c.WaitJob(ctx, img.Status.Job, show.update)
	show.done()
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(a.err, "the job goes on; follow it with: novacron job wait %s\n", img.Status.Job)
		}
		return img, err
	}
	return c.Images.Get(ctx, img.ID)
}

// freeAliases refuses, before gigabytes are sent, what cannot become an alias.
func freeAliases(ctx context.Context, c *client.Client, aliases []string) error {
	for _, alias := range aliases {
		if err := id.CheckName("alias", alias); err != nil {
			return err
		}
		i, err := c.Images.Get(ctx, alias)
		if err == nil && i.Name == alias {
			return errs.New(errs.AlreadyExists, "%q cannot be an alias: it is an image's own name", alias)
		}
		if err != nil && client.CodeOf(err) != string(errs.NotFound) {
			return err
		}
	}
	return nil
}

func setAliases(ctx context.Context, c *client.Client, img api.Image, aliases []string) (api.Image, error) {
	for _, alias := range aliases {
		var err error
		if img, err = c.Images.SetAlias(ctx, img.ID, alias); err != nil {
			return img, err
		}
	}
	return img, nil
}

// openImage makes the image, or finds one of the same name and kind whose files
// did not all arrive yet: fresh tells which.
func (a *app) openImage(ctx context.Context, c *client.Client, req api.ImageCreate) (img api.Image, fresh bool, err error) {
	img, err = c.Images.Create(ctx, req)
	if client.CodeOf(err) != string(errs.AlreadyExists) {
		return img, true, err
	}
	old, look := c.Images.Get(ctx, req.Name)
	if look != nil || old.Status.State != "uploading" || old.Spec.Type != req.Type || old.Spec.Cmdline != req.Cmdline {
		return old, false, err
	}
	fmt.Fprintf(a.err, "the import of image %s was begun before: going on with it\n", old.Name)
	return old, false, nil
}

// fetch has a server read a file from a URL, and waits until it is the image's. When
// a job of an earlier command does so, that is waited for.
func (a *app) fetch(ctx context.Context, c *client.Client, img api.Image, req api.ImageFetch) (api.Image, error) {
	if img.Status.Job == "" {
		ch, err := c.Images.Fetch(ctx, img.ID, req)
		if err != nil {
			return img, err
		}
		img.Status.Job = ch.Job.ID
	}
	return a.converted(ctx, c, img)
}

// upload sends the files of an image, or has them fetched; sum is what one that is
// fetched must be, unless empty.
func (a *app) upload(ctx context.Context, c *client.Client, img api.Image, parts []part, sum string) (api.Image, error) {
	show := newProgress(a.err, isTerminal(a.err))
	defer show.done()
	for _, p := range parts {
		if p.remote() {
			var err error
			if img, err = a.fetch(ctx, c, img, api.ImageFetch{File: p.role, URL: p.path, SHA256: sum}); err != nil {
				return img, err
			}
			continue
		}
		var total int64
		if info, err := os.Stat(p.path); err == nil {
			total = info.Size()
		}
		show.note(0, p.role+": hashing "+unit.FormatBytes(total))
		m := newTransfer(a.clock, total)
		var err error
		img, err = c.Images.UploadFile(ctx, img.ID, p.role, p.path, func(sent int64) {
			if m.at(sent) {
				show.note(int(sent*100/max(total, 1)), p.role+" "+m.line())
			}
		})
		if err != nil {
			return img, err
		}
	}
	show.done()
	return a.converted(ctx, c, img)
}

// cleanupTimeout bounds what is tidied up after an interrupt.
const cleanupTimeout = 10 * time.Second

// leaveHalf decides about an image whose upload failed. What can be gone on with
// stays; what was refused is deleted, if this command made it, so that its name is
// free again. That it cannot is said, and the upload's error stays the command's.
func (a *app) leaveHalf(ctx context.Context, c *client.Client, img api.Image, fresh bool, failure error) {
	switch exitCode(failure) {
	case exitUnavailable, exitInterrupted, exitHost:
		fmt.Fprintf(a.err, "what arrived is kept for 24 hours: the same command goes on with it\n")
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	var err error
	if fresh {
		if _, err = c.Images.Delete(ctx, img.ID); err == nil || client.CodeOf(err) == string(errs.NotFound) {
			return
		}
	}
	fmt.Fprintf(a.err, "the unfinished image is still there; remove it with: novacron image delete %s\n", img.ID)
}

// transfer follows how much of a file was sent, and how fast.
type transfer struct {
	clock clock.Clock
	total int64
	sent  int64
	// what the newest figure was taken from
	begun    bool
	since    time.Duration
	from     int64
	perSec   float64
	lastDraw time.Duration
}

// The figures of a transfer: redrawn so often, and over spans of such a length.
const (
	redrawEvery = 200 * time.Millisecond
	rateSpan    = 2 * time.Second
)

func newTransfer(c clock.Clock, total int64) *transfer { return &transfer{clock: c, total: total} }

// at takes the newest figure, and tells whether it is worth a look.
func (t *transfer) at(sent int64) bool {
	now := t.clock.Boot()
	if !t.begun || sent < t.sent { // what was lost is not speed
		t.begun, t.since, t.from, t.perSec = true, now, sent, 0
	}
	t.sent = sent
	if span := now - t.since; span >= rateSpan || (t.perSec == 0 && span >= redrawEvery) {
		t.perSec = float64(sent-t.from) / span.Seconds()
		t.since, t.from = now, sent
	}
	if now-t.lastDraw < redrawEvery && sent != t.total {
		return false
	}
	t.lastDraw = now
	return true
}

// line is the progress as people read it: bytes, rate, time left.
func (t *transfer) line() string {
	s := unit.FormatBytes(t.sent) + " of " + unit.FormatBytes(t.total)
	if t.perSec <= 0 {
		return s
	}
	left := time.Duration(float64(t.total-t.sent) / t.perSec * float64(time.Second))
	return fmt.Sprintf("%s, %s/s, %s left", s, unit.FormatBytes(int64(t.perSec)), left.Round(time.Second))
}
