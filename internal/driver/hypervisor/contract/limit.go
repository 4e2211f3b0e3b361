package contract

import (
	"context"
	"maps"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Limiter is what a driver also is whose Capabilities say CPUWeight, CPUCap or
// DiskLimits.
type Limiter interface {
	// Limit gives a live machine these limits instead of those it has: of processors at
	// once, of disks from the next request on. They outlive the agent, as the guest
	// does. A kind of limit that Capabilities do not have is refused with
	// errs.Unsupported, a disk that is not the machine's with errs.NotFound, and then
	// nothing has changed. After another error, some of them may hold; the same call
	// again, or one with the old limits, settles it.
	Limit(ctx context.Context, r Ref, l Limits) error
}

// Limits are what a machine may take of its host. The zero value is no limit, and
// the default weight.
type Limits struct {
	// CPUWeight is the share where processors are short, against other machines of the
	// driver: 1 to 10000; 0 is 100.
	CPUWeight int `json:"cpu_weight,omitempty"`
	// CPUCapPercent is the most it may use, with all that the hypervisor does for it,
	// in percent of one processor; 0 for no cap.
	CPUCapPercent int `json:"cpu_cap_percent,omitempty"`
	// Disks that are limited.
	Disks map[id.ID]DiskLimits `json:"disks,omitempty"`
}

// DiskLimits bound what a guest does on a disk, each per second, 0 for none. A total
// excludes those of reads and of writes.
type DiskLimits struct {
	IOPS                int64 `json:"iops,omitempty"`
	ReadIOPS            int64 `json:"read_iops,omitempty"`
	WriteIOPS           int64 `json:"write_iops,omitempty"`
	BytesPerSecond      int64 `json:"bytes_per_second,omitempty"`
	ReadBytesPerSecond  int64 `json:"read_bytes_per_second,omitempty"`
	WriteBytesPerSecond int64 `json:"write_bytes_per_second,omitempty"`
}

// Bounds of CPU limits.
const (
	DefaultCPUWeight = 100
	MaxCPUWeight     = 10000
	MaxCPUCapPercent = 100_000
)

// Allows refuses, with errs.Unsupported, limits of a kind that a driver cannot set.
func (c Capabilities) Allows(l Limits) error {
	for _, k := range []struct {
		wanted, can bool
		what        string
	}{
		{l.CPUWeight != 0 && l.CPUWeight != DefaultCPUWeight, c.CPUWeight, "a weight of CPUs: it has no cpu controller"},
		{l.CPUCapPercent != 0, c.CPUCap, "a cap of CPUs: it has no cpu controller"},
		{len(l.Disks) > 0, c.DiskLimits, "rates of disks"},
	} {
		if k.wanted && !k.can {
			return errs.New(errs.Unsupported, "this node cannot limit a guest by %s", k.what)
		}
	}
	return nil
}

// ValidateLimits tells whether a machine can have limits at all.
func (m Machine) ValidateLimits(l Limits) error {
	if l.CPUWeight < 0 || l.CPUWeight > MaxCPUWeight || l.CPUCapPercent < 0 || l.CPUCapPercent > MaxCPUCapPercent {
		return errs.New(errs.OutOfRange, "a weight of %d and a cap of %d percent: at most %d and %d are possible",
			l.CPUWeight, l.CPUCapPercent, MaxCPUWeight, MaxCPUCapPercent)
	}
	has := map[id.ID]bool{}
	for _, d := range m.Disks {
		has[d.ID] = true
	}
	for disk, d := range l.Disks {
		if !has[disk] {
			return errs.New(errs.NotFound, "VM %s has no disk %s", m.VM, disk)
		}
		if err := d.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (d DiskLimits) validate() error {
	for _, n := range []int64{d.IOPS, d.ReadIOPS, d.WriteIOPS, d.BytesPerSecond, d.ReadBytesPerSecond, d.WriteBytesPerSecond} {
		if n < 0 {
			return errs.New(errs.OutOfRange, "a rate of %d: it is 0 or more", n)
		}
	}
	if (d.IOPS > 0 && d.ReadIOPS+d.WriteIOPS > 0) || (d.BytesPerSecond > 0 && d.ReadBytesPerSecond+d.WriteBytesPerSecond > 0) {
		return errs.New(errs.InvalidField, "a total rate excludes those of reads and of writes")
	}
	return nil
}

// Equal tells whether two sets of limits are the same.
func (l Limits) Equal(o Limits) bool {
	return l.CPUWeight == o.CPUWeight && l.CPUCapPercent == o.CPUCapPercent && maps.Equal(l.Disks, o.Disks)
}
