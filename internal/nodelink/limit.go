package nodelink

import "github.com/novacron/novacron/internal/vocab/id"

// Limits are what a VM may take of its node; what is absent is not limited.
type Limits struct {
	// CPUWeight is 1 to 10000; 0 for the default of 100.
	CPUWeight int `json:"cpu_weight,omitempty"`
	// CPUCapPercent is in percent of one processor.
	CPUCapPercent int `json:"cpu_cap_percent,omitempty"`
	// Disks that are limited, by volume.
	Disks map[id.ID]DiskLimits `json:"disks,omitempty"`
}

// DiskLimits bound what a guest does on a disk, each per second.
type DiskLimits struct {
	IOPS                int64 `json:"iops,omitempty"`
	ReadIOPS            int64 `json:"read_iops,omitempty"`
	WriteIOPS           int64 `json:"write_iops,omitempty"`
	BytesPerSecond      int64 `json:"bytes_per_second,omitempty"`
	ReadBytesPerSecond  int64 `json:"read_bytes_per_second,omitempty"`
	WriteBytesPerSecond int64 `json:"write_bytes_per_second,omitempty"`
}

// SetLimits gives a VM other limits: a guest that runs at once, and what the node
// starts by its own record.
type SetLimits struct {
	Header
	Limits Limits `json:"limits"`
}

// Method implements Command.
func (*SetLimits) Method() string { return "set_limits" }
