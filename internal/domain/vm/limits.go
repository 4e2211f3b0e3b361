package vm

import (
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Bounds of limits, and what is so by default.
const (
	DefaultCPUWeight = 100
	MinCPUWeight     = 1
	MaxCPUWeight     = 10000
	MaxCPUCapPercent = MaxCPUs * 100
	// MaxDiskIOPS and MaxDiskRate are beyond any device sold today; less than MinDiskRate
	// leaves a guest unable to start.
	MaxDiskIOPS = 100_000_000
	MinDiskRate = 64 * unit.KiB
	MaxDiskRate = unit.TiB
)

// Limits are what a VM may take of its node's processors. They may be changed at any
// time, also under a guest that runs.
type Limits struct {
	// CPUWeight is its share where processors are short, against others of the same
	// node: 1 to 10000, 100 when 0.
	CPUWeight int
	// CPUCapPercent is the most it may use, in percent of one processor: 150 is one
	// and a half. 0 for no cap.
	CPUCapPercent int
}

// LimitsChange is what is to be different of Limits. Nil fields stay.
type LimitsChange struct {
	CPUWeight     *int
	CPUCapPercent *int
}

// Apply gives the limits as they would be.
func (c LimitsChange) Apply(l Limits) Limits {
	set(&l.CPUWeight, c.CPUWeight)
	set(&l.CPUCapPercent, c.CPUCapPercent)
	return l
}

// Normal spells out what is so by default.
func (l Limits) Normal() Limits {
	if l.CPUWeight == 0 {
		l.CPUWeight = DefaultCPUWeight
	}
	return l
}

// DiskLimits bound what a guest does on one disk. Each is 0 for none; a total
// excludes those of reads and of writes.
type DiskLimits struct {
	// IOPS, of reads, of writes, are requests per second.
	IOPS, ReadIOPS, WriteIOPS int64
	// BytesPerSecond, of reads, of writes.
	BytesPerSecond, ReadBytesPerSecond, WriteBytesPerSecond int64
}

// Kinds of limits that a node may or may not be able to set.
const (
	LimitCPUWeight = "cpu_weight"
	LimitCPUCap    = "cpu_cap"
	LimitDiskIO    = "disk_io"
)

// Limited lists the kinds of limits that the VM has.
func (v View) Limited() []string {
	kinds := v.Intent.Limits.kinds()
	for _, d := range v.Volumes {
		if d.Limits != (DiskLimits{}) {
			return append(kinds, LimitDiskIO)
		}
	}
	return kinds
}

func (l Limits) kinds() []string {
	var out []string
	if l.Normal().CPUWeight != DefaultCPUWeight {
		out = append(out, LimitCPUWeight)
	}
	if l.CPUCapPercent != 0 {
		out = append(out, LimitCPUCap)
	}
	return out
}

// Kinds lists the kinds of limits that a new VM is to have.
func (s Spec) Kinds() []string {
	v := View{Intent: Intent{Limits: s.Limits}}
	for _, d := range s.Disks {
		v.Volumes = append(v.Volumes, Volume{Limits: d.Limits})
	}
	return v.Limited()
}

// Relimits tells whether its processors would be limited otherwise.
func (c Change) Relimits(in Intent) bool {
	return c.Limits.Apply(in.Limits).Normal() != in.Limits.Normal()
}

// HasGuest tells whether its node has a guest of it, or would start one by its own
// record: what changes of a guest has to reach the node then.
func (v View) HasGuest() bool {
	if v.Intent.NodeID == nil || v.Intent.Epoch == 0 {
		return false
	}
	return unsettled(v.Intent) || (v.Observed != nil && v.Observed.Phase.OnNode())
}

// Validate checks the limits of one disk.
func (l DiskLimits) Validate() error {
	v := validation{}
	v.diskLimits("/limits", l)
	return v.err()
}

func (v *validation) limits(l Limits) {
	if l.CPUWeight != 0 {
		v.between("/cpu_weight", int64(l.CPUWeight), MinCPUWeight, MaxCPUWeight, plain)
	}
	v.between("/cpu_cap_percent", int64(l.CPUCapPercent), 0, MaxCPUCapPercent, plain)
}

func (v *validation) diskLimits(at string, l DiskLimits) {
	v.rates(at, "iops", "read_iops", "write_iops", l.IOPS, l.ReadIOPS, l.WriteIOPS, 1, MaxDiskIOPS, plain)
	v.rates(at, "bytes_per_second", "read_bytes_per_second", "write_bytes_per_second",
		l.BytesPerSecond, l.ReadBytesPerSecond, l.WriteBytesPerSecond, MinDiskRate, MaxDiskRate, unit.FormatBytes)
}

// rates checks a total and its two parts.
func (v *validation) rates(at, total, read, write string, t, r, w, low, high int64, show func(int64) string) {
	for _, f := range []struct {
		name string
		n    int64
	}{{total, t}, {read, r}, {write, w}} {
		if f.n != 0 {
			v.between(at+"/"+f.name, f.n, low, high, show)
		}
	}
	if t != 0 && (r != 0 || w != 0) {
		v.refuse(errs.InvalidField, at+"/"+total, "excludes "+read+" and "+write, "", plain(t))
	}
}
