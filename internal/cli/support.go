package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const supportLong = `Gather into one file what helps others to help you: what 'novacron doctor'
finds, the documents of nodes, VMs, images and jobs, the last events, the
reconcilers, and the ends of this machine's logs with facts about its host.

Tokens, passwords in URLs, private keys and what guests are told by cloud-init
are blanked out. Names, labels and
addresses are not: look into the file before you give it away.`

func newSupport(a *app) *cobra.Command {
	return group(a, "support", "Help others to help you", newSupportBundle(a))
}

func newSupportBundle(a *app) *cobra.Command {
	var file string
	cmd := leaf("bundle", "Gather what helps to find a fault", names(), func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			file = "novacron-support-" + a.clock.Now().Format("20060102-150405") + ".tar.gz"
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return errs.New(errs.HostFailure, "%s cannot be written", file).Because(err)
		}
		b := newBundle(f, a.clock.Now())
		a.gather(cmd, b)
		if err := errors.Join(b.close(), f.Close()); err != nil {
			return errs.New(errs.HostFailure, "%s cannot be written; is the disk full?", file).Because(errors.Join(err, os.Remove(file)))
		}
		fmt.Fprintf(a.out, "%s holds %d parts; look into it before you give it away\n", file, b.parts)
		for _, missing := range b.missing {
			fmt.Fprintln(a.err, "not in it: "+missing)
		}
		return nil
	})
	cmd.Long = supportLong
	cmd.Flags().StringVar(&file, "file", "", "write to this `file`")
	return cmd
}

// bundle is an archive that is being written. A part that cannot be had is named
// and left out.
type bundle struct {
	zip     *gzip.Writer
	tar     *tar.Writer
	at      time.Time
	parts   int
	missing []string
	err     error
}

func newBundle(w io.Writer, at time.Time) *bundle {
	z := gzip.NewWriter(w)
	return &bundle{zip: z, tar: tar.NewWriter(z), at: at}
}

// secrets are what must not travel: tokens by their prefix, passwords in URLs,
// private keys.
var secrets = regexp.MustCompile(`nv[cjs]_[A-Za-z0-9_-]+|(://[^:/@\s]*:)[^@/\s]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----`)

func blank(b []byte) []byte {
	return secrets.ReplaceAllFunc(b, func(found []byte) []byte {
		if m := secrets.FindSubmatch(found); len(m) > 1 && len(m[1]) > 0 {
			return append(append([]byte{}, m[1]...), "[redacted]@"...)
		}
		return []byte("[redacted]")
	})
}

func (b *bundle) add(name string, content []byte) {
	content = blank(content)
	if b.err == nil {
		b.err = b.tar.WriteHeader(&tar.Header{Name: "novacron-support/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: b.at})
	}
	if b.err == nil {
		_, b.err = b.tar.Write(content)
	}
	b.parts++
}

func (b *bundle) lacks(name string, err error) {
	b.missing = append(b.missing, name+": "+publicError(err).Detail)
}

// document adds what a question answers.
func document[T any](b *bundle, name string, v T, err error) {
	var raw []byte
	if err == nil {
		raw, err = json.MarshalIndent(v, "", "  ")
	}
	if err != nil {
		b.lacks(name, err)
		return
	}
	b.add(name, append(raw, '\n'))
}

// mostItems of a list are gathered.
const mostItems = 2000

func items[T any](b *bundle, name string, all iter.Seq2[T, error]) {
	out := []T{}
	var failed error
	for v, err := range all {
		if failed = err; err != nil || len(out) == mostItems {
			break
		}
		out = append(out, v)
	}
	document(b, name, out, failed)
}

func (b *bundle) close() error { return errors.Join(b.err, b.tar.Close(), b.zip.Close()) }

// gather fills the bundle; what cannot be had is left out.
func (a *app) gather(cmd *cobra.Command, b *bundle) {
	ctx := cmd.Context()
	b.add("version.txt", []byte(a.version+"\n"))
	document(b, "doctor.json", append(a.examineHost(ctx), a.examineCluster(cmd)...), nil)
	c, err := a.connect(cmd)
	if err != nil {
		b.lacks("the cluster", err)
	} else {
		gatherCluster(ctx, b, c)
	}
	a.gatherHost(ctx, b)
}

func gatherCluster(ctx context.Context, b *bundle, c *client.Client) {
	newest := client.ListOptions{Sort: "-created_at"}
	sys, err := c.System(ctx)
	document(b, "cluster/system.json", sys, err)
	if err != nil {
		return // nothing else would answer
	}
	items(b, "cluster/nodes.json", c.Nodes.All(ctx, client.ListOptions{}))
	items(b, "cluster/vms.json", untold(c.VMs.All(ctx, client.ListOptions{})))
	items(b, "cluster/images.json", c.Images.All(ctx, client.ListOptions{}))
	items(b, "cluster/jobs.json", c.Jobs.All(ctx, newest))
	tasks, err := c.Tasks(ctx)
	document(b, "cluster/reconcilers.json", tasks, err)
}

// untold gives VMs without what cloud-init is told, which may hold passwords.
func untold(all iter.Seq2[api.VM, error]) iter.Seq2[api.VM, error] {
	hide := func(text string) string {
		if text == "" {
			return ""
		}
		return fmt.Sprintf("[redacted: %d bytes]", len(text))
	}
	return func(yield func(api.VM, error) bool) {
		for v, err := range all {
			if c := v.Spec.CloudInit; c != nil {
				v.Spec.CloudInit = &api.VMCloudInit{
					Hostname: c.Hostname, SSHAuthorizedKeys: c.SSHAuthorizedKeys,
					UserData: hide(c.UserData), NetworkConfig: hide(c.NetworkConfig), MetaData: hide(c.MetaData),
				}
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

// mostLog is how much of the end of each log is gathered.
const mostLog = 2 << 20

// hostFacts are files that say what kind of host this is.
var hostFacts = []string{
	"/etc/os-release", "/proc/version", "/proc/cpuinfo", "/proc/meminfo", "/proc/mounts", "/proc/cgroups", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io",
}

// hostCommands say the rest.
var hostCommands = map[string][]string{
	"df.txt": {"df", "-h"}, "ip.txt": {"ip", "-brief", "address"}, "ps.txt": {"ps", "-eo", "pid,ppid,user,etime,rss,comm"}, "qemu.txt": {"qemu-system-x86_64", "--version"},
}

func (a *app) gatherHost(ctx context.Context, b *bundle) {
	for _, path := range hostFacts {
		if raw, err := os.ReadFile(path); err == nil {
			b.add("host"+path, raw)
		}
	}
	for name, line := range hostCommands {
		if raw, err := exec.CommandContext(ctx, line[0], line[1:]...).Output(); err == nil { //nolint:gosec // a line of the program's own table, without any input
			b.add("host/"+name, raw)
		}
	}
	p, err := a.paths("")
	if err != nil {
		return
	}
	logs, err := filepath.Glob(filepath.Join(p.Logs(), "*.log"))
	if err != nil {
		return
	}
	for _, path := range logs {
		raw, err := endOf(path, mostLog)
		if err != nil {
			b.lacks(path, err)
			continue
		}
		b.add("logs/"+filepath.Base(path), raw)
	}
}

// endOf reads the last bytes of a file.
func endOf(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.New(errs.Forbidden, "%s cannot be read", path).Because(err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, most))
}
