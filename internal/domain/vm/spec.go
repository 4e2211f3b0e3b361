package vm

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Bounds of a VM. The upper ones are what QEMU's q35 machine supports with room
// to spare on any host sold today; the scheduler has the last word.
const (
	MaxCPUs     = 512
	MinMemory   = 16 * unit.MiB
	MaxMemory   = 16 * unit.TiB
	MemoryGrain = unit.MiB
	MinDisk     = unit.MiB
	MaxDisk     = 64 * unit.TiB
	DiskGrain   = 512
	MaxDisks    = 16
	MaxNICs     = 8
	MaxForwards = 64
	MaxLabels   = 64
	maxLabelLen = 63
)

// Spec is what a user asks of a new VM.
type Spec struct {
	Name        string
	Labels      map[string]string
	CPUs        int
	MemoryBytes int64
	// Hardware: what is empty is as by default.
	Hardware Hardware
	Disks    []DiskSpec
	NICs     []NICSpec
	// CloudInit is what the guest is told at its first boot; nil for nothing.
	CloudInit *CloudInit
	// SeedImage is the name or id of the CD that the guest finds instead.
	SeedImage string
	// CDROM is the name or id of the CD in the drive whose medium changes at any time.
	CDROM  string
	Policy Policy
	Limits Limits
}

// DiskSpec is a disk wanted. Disk 0 of a VM from a disk image is made from it.
type DiskSpec struct {
	// SizeBytes may be 0 with an Image: then it is the image's.
	SizeBytes int64
	// Image is the name or id of what it is made from; empty for an empty disk.
	Image string
	// Pool is the name or id of the storage pool that it is in; empty for its VM's node.
	Pool   string
	Limits DiskLimits
}

// NICSpec is a network interface wanted: on a bridge of its node, or in a user-mode
// network with forwards.
type NICSpec struct {
	// Bridge of the node that it joins; empty for a user-mode network.
	Bridge   string
	Forwards []Forward
}

// Forward leads a port of the node to the guest.
type Forward struct {
	Protocol  string // "tcp" or "udp"
	HostIP    string
	HostPort  int
	GuestPort int
}

// Validate checks everything that can be told without looking at other objects.
// The error lists every refused field, not just the first.
func (s Spec) Validate() error {
	v := validation{}
	if err := id.CheckName("/name", s.Name); err != nil {
		return err
	}
	v.between("/cpus", int64(s.CPUs), 1, MaxCPUs, plain)
	v.between("/memory_bytes", s.MemoryBytes, MinMemory, MaxMemory, unit.FormatBytes)
	v.multiple("/memory_bytes", s.MemoryBytes, MemoryGrain)
	v.between("/disks", int64(len(s.Disks)), 0, MaxDisks, plain)
	v.between("/nics", int64(len(s.NICs)), 0, MaxNICs, plain)
	for i, d := range s.Disks {
		v.disk("/disks/"+strconv.Itoa(i), d)
	}
	for i, n := range s.NICs {
		at := "/nics/" + strconv.Itoa(i)
		v.bridge(at, n)
		v.forwards(at+"/forwards", n.Forwards)
	}
	v.labels(s.Labels)
	v.hardware("/machine", s.Hardware)
	v.slots(s)
	v.policy(s.Policy)
	v.limits(s.Limits)
	v.cloudInit("/cloud_init", s.CloudInit)
	if s.SeedImage != "" && s.CloudInit.OrNil() != nil {
		v.refuse(errs.InvalidField, "/seed_image", twoSeeds, "", s.SeedImage)
	}
	return v.err()
}

type validation struct{ fields []errs.Field }

func (v *validation) err() error {
	if len(v.fields) == 0 {
		return nil
	}
	f := v.fields[0]
	e := errs.New(f.Code, "%s: %s", f.Pointer, f.Message)
	for _, f := range v.fields {
		e.At(f)
	}
	return e
}

func (v *validation) refuse(code errs.Code, at, message, limit, got string) {
	v.fields = append(v.fields, errs.Field{Code: code, Pointer: at, Message: message, Limit: limit, Got: got})
}

func plain(n int64) string { return strconv.FormatInt(n, 10) }

func (v *validation) between(at string, n, low, high int64, show func(int64) string) {
	if n >= low && n <= high {
		return
	}
	limit := show(low) + " to " + show(high)
	v.refuse(errs.OutOfRange, at, "must be "+limit, limit, plain(n))
}

func (v *validation) multiple(at string, n, grain int64) {
	if n%grain != 0 {
		limit := "a multiple of " + unit.FormatBytes(grain)
		v.refuse(errs.OutOfRange, at, "must be "+limit, limit, plain(n))
	}
}

func (v *validation) forwards(at string, fs []Forward) {
	v.between(at, int64(len(fs)), 0, MaxForwards, plain)
	seen := map[string]bool{}
	for i, f := range fs {
		p := at + "/" + strconv.Itoa(i)
		if f.Protocol != "tcp" && f.Protocol != "udp" {
			v.refuse(errs.InvalidField, p+"/protocol", "must be tcp or udp", "tcp, udp", f.Protocol)
		}
		v.between(p+"/host_port", int64(f.HostPort), 1024, 65535, plain)
		v.between(p+"/guest_port", int64(f.GuestPort), 1, 65535, plain)
		if f.HostIP != "" {
			if _, err := netip.ParseAddr(f.HostIP); err != nil {
				v.refuse(errs.InvalidField, p+"/host_ip", "must be an IP address of the node", "an IP address", f.HostIP)
			}
		}
		key := f.Protocol + " " + strconv.Itoa(f.HostPort)
		if seen[key] {
			v.refuse(errs.InvalidField, p+"/host_port", "is forwarded twice", "", key)
		}
		seen[key] = true
	}
}

func (v *validation) labels(labels map[string]string) {
	v.between("/labels", int64(len(labels)), 0, MaxLabels, plain)
	for k, val := range labels {
		if k == "" || len(k) > maxLabelLen || strings.ContainsFunc(k, notLabel) {
			v.refuse(errs.InvalidField, "/labels", "a label's key is 1 to 63 characters of a-z, A-Z, 0-9, '-', '_', '.', '/'", "", k)
		}
		if len(val) > maxLabelLen || strings.ContainsFunc(val, notLabel) {
			v.refuse(errs.InvalidField, "/labels/"+errs.Clip(k), "a label's value is up to 63 characters of a-z, A-Z, 0-9, '-', '_', '.', '/'", "", val)
		}
	}
}

func notLabel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./", r)
}
