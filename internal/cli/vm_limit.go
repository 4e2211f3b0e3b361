package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

// limitFlags are what a person lets a VM take of its node's processors.
type limitFlags struct{ weight, capPercent int }

func (f *limitFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.weight, "cpu-weight", 100, "its `share` where its node's processors are short: 1 to 10000")
	cmd.Flags().IntVar(&f.capPercent, "cpu-cap", 0, "the most it may use, in `percent` of one processor: 150 is one and a half, 0 is no cap")
}

// patch puts what was given into a change.
func (f *limitFlags) patch(cmd *cobra.Command, p *api.VMPatch) {
	if cmd.Flags().Changed("cpu-weight") {
		p.CPUWeight = &f.weight
	}
	if cmd.Flags().Changed("cpu-cap") {
		p.CPUCapPercent = &f.capPercent
	}
}

// create puts what was given into a creation.
func (f *limitFlags) create(cmd *cobra.Command, r *api.VMCreate) {
	if cmd.Flags().Changed("cpu-weight") {
		r.CPUWeight = f.weight
	}
	r.CPUCapPercent = f.capPercent
}

// limitPairs show limits that are not as by default.
func limitPairs(s api.VMSpec) (pairs []output.Pair) {
	if s.CPUWeight != 0 && s.CPUWeight != 100 {
		pairs = append(pairs, output.Pair{Key: "cpu weight", Value: strconv.Itoa(s.CPUWeight)})
	}
	if s.CPUCapPercent != 0 {
		pairs = append(pairs, output.Pair{Key: "cpu cap", Value: strconv.Itoa(s.CPUCapPercent) + "% of one processor"})
	}
	return pairs
}

// diskLimits says what a disk is limited to.
func diskLimits(l *api.DiskLimits) string {
	if l == nil {
		return ""
	}
	var out []string
	for _, r := range []struct {
		n    int64
		what string
	}{{l.IOPS, "requests/s"}, {l.ReadIOPS, "reads/s"}, {l.WriteIOPS, "writes/s"}} {
		if r.n != 0 {
			out = append(out, fmt.Sprintf("%d %s", r.n, r.what))
		}
	}
	for _, r := range []struct {
		n    api.Bytes
		what string
	}{{l.BytesPerSecond, ""}, {l.ReadBytesPerSecond, " read"}, {l.WriteBytesPerSecond, " written"}} {
		if r.n != 0 {
			out = append(out, size(r.n)+"/s"+r.what)
		}
	}
	return strings.Join(out, ", ")
}

// rateFlags are limits of one disk.
type rateFlags struct {
	iops, readIOPS, writeIOPS int64
	rate, readRate, writeRate string
	none                      bool
}

func (f *rateFlags) limits(cmd *cobra.Command) (api.DiskLimits, error) {
	l := api.DiskLimits{IOPS: f.iops, ReadIOPS: f.readIOPS, WriteIOPS: f.writeIOPS}
	for _, r := range []struct {
		flag, text string
		to         *api.Bytes
	}{{"rate", f.rate, &l.BytesPerSecond}, {"read-rate", f.readRate, &l.ReadBytesPerSecond}, {"write-rate", f.writeRate, &l.WriteBytesPerSecond}} {
		if r.text == "" {
			continue
		}
		b, err := api.ParseBytes(r.text)
		if err != nil {
			return l, usage(cmd, "--%s: %s", r.flag, err)
		}
		*r.to = b
	}
	if f.none != (l == api.DiskLimits{}) {
		return l, usage(cmd, "give limits, or --none to take all of them away")
	}
	return l, nil
}

func newDiskLimit(a *app) *cobra.Command {
	var w *waitFlags
	var f rateFlags
	cmd := leaf("limit NAME DISK", "Limit what a virtual machine does on a disk; it may run", names("NAME", "DISK"), func(cmd *cobra.Command, args []string) error {
		l, err := f.limits(cmd)
		if err != nil {
			return err
		}
		return a.changeDisk(cmd, w, "limit disk "+args[1]+" of "+args[0], func(c *client.Client) (client.Change, error) {
			return c.VMs.LimitDisk(cmd.Context(), args[0], args[1], l)
		})
	})
	cmd.Long = `Limit what a virtual machine does on a disk. One that runs is limited at once, any
other from its next start on.

What is given are all the limits there are then. A total excludes those of reads
and of writes.`
	cmd.Example = `  novacron vm disk limit db 1 --iops 500 --rate 50MiB
  novacron vm disk limit db 1 --write-iops 200 --read-iops 1000
  novacron vm disk limit db 1 --none`
	fl := cmd.Flags()
	fl.Int64Var(&f.iops, "iops", 0, "`requests` per second, reads and writes together")
	fl.Int64Var(&f.readIOPS, "read-iops", 0, "`reads` per second")
	fl.Int64Var(&f.writeIOPS, "write-iops", 0, "`writes` per second")
	fl.StringVar(&f.rate, "rate", "", "bytes per second, read and written together, a `size` such as 50MiB")
	fl.StringVar(&f.readRate, "read-rate", "", "bytes read per second, a `size`")
	fl.StringVar(&f.writeRate, "write-rate", "", "bytes written per second, a `size`")
	fl.BoolVar(&f.none, "none", false, "take all limits away")
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}
