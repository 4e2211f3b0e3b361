package cli

import (
	"bufio"
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// createFlags are what a person says of a new VM.
type createFlags struct {
	image, memory, node string
	cpus                int
	disks, forwards     []string
	labels              []string
	start               bool
	policy              policyFlags
	cloud               cloudFlags
	limits              limitFlags
	hardware            hardwareFlags
	nics                []string
	cdrom               string
	pool                string
}

func newVMCreate(a *app) *cobra.Command {
	var f createFlags
	var w *waitFlags
	cmd := leaf("create NAME", "Create a virtual machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		req, err := f.request(cmd, args[0])
		if err != nil {
			return err
		}
		edit, err := f.cloud.edit(a, cmd)
		if err != nil {
			return err
		}
		if edit != nil {
			req.CloudInit = edit(nil)
		}
		req.SeedImage, req.CDROM = f.cloud.seed, f.cdrom
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		ch, err := c.VMs.Create(cmd.Context(), req)
		if err != nil {
			return err
		}
		return a.settle(cmd, c, "create "+args[0], ch, w)
	})
	cmd.Example = `  novacron vm create web --image debian --cpus 2 --memory 2GiB --disk 20GiB --start --wait
  novacron vm create db --image debian --disk 20GiB --disk 100GiB --forward tcp:15432:5432 --label tier=data
  novacron vm create web --image debian --ssh-key ~/.ssh/id_ed25519.pub --user-data @web.yaml --start`
	fl := cmd.Flags()
	fl.StringVar(&f.image, "image", "", "`image` it is made from")
	fl.IntVar(&f.cpus, "cpus", 1, "number of virtual CPUs")
	fl.StringVar(&f.memory, "memory", "512MiB", "`size` of its memory, such as 512MiB")
	fl.StringArrayVar(&f.disks, "disk", nil, "`size` of a disk, such as 10GiB, or SIZE:IMAGE to make it from an image, with @POOL at its end to have it in a storage pool; repeat it for more")
	fl.StringVar(&f.pool, "pool", "", "storage `pool` for its disks that name none")
	mustComplete(cmd.RegisterFlagCompletionFunc("pool", a.completePools))
	fl.StringArrayVar(&f.forwards, "forward", nil, "lead a port of the node to the guest: `tcp:[HOSTIP:]HOSTPORT:GUESTPORT`")
	fl.StringArrayVar(&f.labels, "label", nil, "a label, `key=value`")
	fl.StringVar(&f.node, "node", "", "place it on this `node` only")
	fl.StringVar(&f.cdrom, "cdrom", "", "CD in its drive, which may be ejected at any time: an `image` imported with --iso")
	mustComplete(cmd.RegisterFlagCompletionFunc("cdrom", a.completeImages))
	fl.BoolVar(&f.start, "start", false, "start it once it is made")
	f.policy.add(cmd)
	f.limits.add(cmd)
	fl.StringArrayVar(&f.nics, "nic", nil, "a network interface, `bridge=NAME or user`; repeat it for more")
	f.cloud.add(a, cmd)
	f.hardware.add(cmd)
	w = a.addWait(cmd)
	mustComplete(cmd.RegisterFlagCompletionFunc("image", a.completeImages))
	mustComplete(cmd.RegisterFlagCompletionFunc("node", a.completeNodes))
	return cmd
}

func (f createFlags) request(cmd *cobra.Command, name string) (api.VMCreate, error) {
	req := api.VMCreate{Name: name, CPUs: f.cpus, Image: f.image, Node: f.node, Start: f.start, Machine: f.hardware.machine()}
	f.policy.create(&req)
	f.limits.create(cmd, &req)
	var err error
	if req.MemoryBytes, err = api.ParseBytes(f.memory); err != nil {
		return req, usage(cmd, "--memory: %s", err)
	}
	if req.Disks, err = f.wanted(cmd); err != nil {
		return req, err
	}
	if req.NICs, err = f.interfaces(cmd); err != nil {
		return req, err
	}
	set, unset, err := parseLabels(f.labels)
	if err != nil || len(unset) > 0 {
		return req, usage(cmd, "--label takes key=value")
	}
	if len(set) > 0 {
		req.Labels = set
	}
	return req, nil
}

// wanted are the disks, each in a pool of its own or in the one that is named for all.
func (f createFlags) wanted(cmd *cobra.Command) (out []api.VMDiskCreate, err error) {
	for _, d := range f.disks {
		disk, err := parseDisk(d)
		if err != nil {
			return nil, usage(cmd, "--disk: %s", err)
		}
		disk.Pool = cmp.Or(disk.Pool, f.pool)
		out = append(out, disk)
	}
	if f.pool != "" && len(f.disks) == 0 {
		out = []api.VMDiskCreate{{Pool: f.pool}}
	}
	return out, nil
}

// parseDisk reads 10GiB, and 10GiB:dataset or :dataset for a disk from an image, each with
// @shared at its end for one in a storage pool.
func parseDisk(s string) (api.VMDiskCreate, error) {
	what, pool, pooled := strings.Cut(s, "@")
	n, image, named := strings.Cut(what, ":")
	d := api.VMDiskCreate{Image: image, Pool: pool}
	if pooled && pool == "" {
		return d, fmt.Errorf("%.60q names no storage pool after the '@'", s)
	}
	if named && image == "" {
		return d, fmt.Errorf("%.60q names no image after the ':'", s)
	}
	if named && n == "" {
		return d, nil
	}
	var err error
	d.SizeBytes, err = api.ParseBytes(n)
	return d, err
}

// parseForward reads tcp:8080:80 and udp:127.0.0.1:5353:53. An IPv6 address
// stands in brackets.
func parseForward(s string) (api.Forward, error) {
	bad := errs.New(errs.InvalidField, "%q is not protocol:[host address:]host port:guest port, as in tcp:8080:80", errs.Clip(s))
	proto, rest, ok := strings.Cut(s, ":")
	if !ok || (proto != "tcp" && proto != "udp") {
		return api.Forward{}, bad
	}
	last := strings.LastIndexByte(rest, ':')
	if last < 0 {
		return api.Forward{}, bad
	}
	host, guest := rest[:last], rest[last+1:]
	f := api.Forward{Protocol: proto}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		f.HostIP, host = strings.Trim(host[:i], "[]"), host[i+1:]
	}
	var err1, err2 error
	f.HostPort, err1 = strconv.Atoi(host)
	f.GuestPort, err2 = strconv.Atoi(guest)
	if err1 != nil || err2 != nil {
		return api.Forward{}, bad
	}
	return f, nil
}

// parseLabels reads key=value to set and key- to remove.
func parseLabels(args []string) (set map[string]string, unset []string, err error) {
	set = map[string]string{}
	for _, s := range args {
		k, v, ok := strings.Cut(s, "=")
		switch {
		case ok && k != "":
			set[k] = v
		case !ok && len(s) > 1 && strings.HasSuffix(s, "-"):
			unset = append(unset, strings.TrimSuffix(s, "-"))
		default:
			return nil, nil, errs.New(errs.InvalidField, "%q is not a label: write key=value, or key- to remove one", errs.Clip(s))
		}
	}
	return set, unset, nil
}

func newVMDelete(a *app) *cobra.Command {
	var w *waitFlags
	var yes bool
	cmd := leaf("delete NAME...", "Delete virtual machines and their disks", someNames, func(cmd *cobra.Command, args []string) error {
		if !yes && !a.confirm(fmt.Sprintf("Delete %s and all disks?", strings.Join(args, ", "))) {
			return errs.New(errs.Cancelled, "nothing was deleted")
		}
		return a.eachVM(cmd, args, w, func(c *client.Client, vm string) (client.Change, error) {
			return c.VMs.Delete(cmd.Context(), vm)
		})
	})
	cmd.Aliases = []string{"rm"}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask (a script is never asked)")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// confirm asks a person; a script has decided already.
func (a *app) confirm(question string) bool {
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return true
	}
	fmt.Fprintf(a.err, "%s [y/N] ", output.Clean(question))
	line, err := bufio.NewReader(a.in).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return err == nil && (answer == "y" || answer == "yes")
}
