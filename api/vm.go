package api

import "time"

// VM is a virtual machine.
type VM struct {
	Meta
	Spec   VMSpec   `json:"spec"`
	Status VMStatus `json:"status"`
}

// VMSpec is what is wanted of a VM.
type VMSpec struct {
	CPUs        int   `json:"cpus"`
	MemoryBytes Bytes `json:"memory_bytes"`
	// Machine is what the guest sees beside that.
	Machine *VMMachine `json:"machine,omitempty"`
	Image   string     `json:"image,omitempty"`
	Power   string     `json:"power"` // "on" or "off"
	Disks   []VMDisk   `json:"disks"`
	NICs    []VMNIC    `json:"nics"`
	// CloudInit is what the guest is told at its first boot.
	CloudInit *VMCloudInit `json:"cloud_init,omitempty"`
	// SeedImage is the CD that the guest finds in its drive instead.
	SeedImage string `json:"seed_image,omitempty"`
	// CDROM is the CD in the drive whose medium changes at any time.
	CDROM string `json:"cdrom,omitempty"`
	// Protected: is its deletion refused?
	Protected bool `json:"protected,omitempty"`
	// RestartPolicy says when it is started again whose guest ended by itself: never,
	// on_failure or always.
	RestartPolicy string `json:"restart_policy"`
	// DrainPolicy says what becomes of it when its node is emptied: live (moved while it
	// runs where that can be done, else as cold), cold (shut down, moved, started), stop
	// (shut down and left there) or refuse (left as it is).
	DrainPolicy string `json:"drain_policy"`
	// Autostart: is it started again when its node's host starts, if it ran?
	Autostart bool `json:"autostart"`
	// StartOrder is its place among those, 0 to 1000, lower ones first;
	// StartDelaySeconds is how long the node then waits before the next place.
	StartOrder        int   `json:"start_order,omitempty"`
	StartDelaySeconds int64 `json:"start_delay_seconds,omitempty"`
	// CPUWeight is its share where its node's processors are short: 1 to 10000, 100 by
	// default.
	CPUWeight int `json:"cpu_weight"`
	// CPUCapPercent is the most it may use, in percent of one processor: 150 is one and
	// a half; absent for no cap.
	CPUCapPercent int `json:"cpu_cap_percent,omitempty"`
}

// VMMachine is the hardware that a guest sees. Fields that are absent are as by
// default, and in a change they stay; it changes while the VM is stopped.
type VMMachine struct {
	// Type is the type of the board: q35, one version of it, such as pc-q35-7.2, or
	// microvm, which has little but virtio devices. A VM that is asked to be q35 gets
	// the newest version of its first node, and keeps it.
	Type string `json:"type,omitempty"`
	// CPU is the model of the processor: x86-64-v2 (the default), x86-64-v3, host, max,
	// or one that QEMU has a name for.
	CPU string `json:"cpu,omitempty"`
	// Firmware is what the guest starts by: bios (the default), uefi or uefi-secure-boot.
	Firmware string `json:"firmware,omitempty"`
}

// VMCloudInit is what cloud-init in a guest finds on the VM's seed, a CD of the
// NoCloud data source. One with nothing in it is none.
type VMCloudInit struct {
	// Hostname is the VM's name when absent.
	Hostname string `json:"hostname,omitempty"`
	// SSHAuthorizedKeys are public keys that open the guest's first account, without
	// options.
	SSHAuthorizedKeys []string `json:"ssh_authorized_keys,omitempty"`
	// UserData reaches the guest byte for byte: a #cloud-config, a script, or a MIME
	// message; at most 64 KiB, as the others.
	UserData string `json:"user_data,omitempty"`
	// NetworkConfig is cloud-init's network configuration, version 1 or 2, as YAML.
	NetworkConfig string `json:"network_config,omitempty"`
	// MetaData are further fields of the instance, as YAML. The server writes
	// instance-id, local-hostname and public-keys.
	MetaData string `json:"meta_data,omitempty"`
}

// VMDisk is one disk of a VM.
type VMDisk struct {
	ID string `json:"id"`
	// Slot is its place among the VM's disks; a place that became free stays free.
	Slot      int    `json:"slot"`
	SizeBytes Bytes  `json:"size_bytes"`
	Image     string `json:"image,omitempty"`
	// Pool is the storage pool that it is in; absent for the VM's node.
	Pool string `json:"pool,omitempty"`
	// Limits bound what the guest does on it; absent for none.
	Limits *DiskLimits `json:"limits,omitempty"`
}

// DiskLimits bound what a guest does on a disk, each per second, 0 or absent for
// none. A total excludes those of reads and of writes.
type DiskLimits struct {
	IOPS      int64 `json:"iops,omitempty"`
	ReadIOPS  int64 `json:"read_iops,omitempty"`
	WriteIOPS int64 `json:"write_iops,omitempty"`
	// BytesPerSecond is at least 64 KiB, as the other two.
	BytesPerSecond      Bytes `json:"bytes_per_second,omitempty"`
	ReadBytesPerSecond  Bytes `json:"read_bytes_per_second,omitempty"`
	WriteBytesPerSecond Bytes `json:"write_bytes_per_second,omitempty"`
}

// VMNIC is one network interface of a VM.
type VMNIC struct {
	ID  string `json:"id"`
	MAC string `json:"mac"`
	// Bridge of the node that it is on; absent in a user-mode network.
	Bridge   string    `json:"bridge,omitempty"`
	Forwards []Forward `json:"forwards,omitempty"`
}

// Forward leads a port of the node to the guest.
type Forward struct {
	Protocol  string `json:"protocol"`
	HostIP    string `json:"host_ip,omitempty"`
	HostPort  int    `json:"host_port"`
	GuestPort int    `json:"guest_port"`
}

// VMStatus is how a VM appears.
type VMStatus struct {
	// State is one of pending, provisioning, starting, running, paused, suspended,
	// stopping, stopped, migrating, restoring, deleting, failed, unknown.
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// LastState is what an unknown VM was last seen as.
	LastState string `json:"last_state,omitempty"`
	Node      string `json:"node,omitempty"`
	// OwnerEpoch rises with each incarnation.
	OwnerEpoch int64 `json:"owner_epoch"`
	// Job is the job that holds the VM.
	Job string `json:"job,omitempty"`
	// Placement says, per node, why none fits.
	Placement []PlacementReason `json:"placement,omitempty"`
	// Addresses are where others reach the guest, as its agent said last: up to 16, those
	// of the VM's own interfaces first.
	Addresses []string `json:"addresses,omitempty"`
	// Frozen: the guest's file systems are; absent for not.
	Frozen *VMFrozen `json:"frozen,omitempty"`
	// Restarts is what became of it by its restart policy since somebody started it;
	// absent when nothing did.
	Restarts *VMRestarts `json:"restarts,omitempty"`
}

// VMRestarts is what became of a VM by its restart policy.
type VMRestarts struct {
	// Total counts the restarts, InARow those since it was last healthy for ten minutes.
	Total  int `json:"total"`
	InARow int `json:"in_a_row"`
	// Reason is why it ended last, at EndedAt.
	Reason  string    `json:"reason"`
	EndedAt time.Time `json:"ended_at"`
	// LastAt is when it was last started again, NextAt when it will be.
	LastAt *time.Time `json:"last_at,omitempty"`
	NextAt *time.Time `json:"next_at,omitempty"`
	// GaveUpAt is when it ended once too often: it is not started again until somebody
	// does.
	GaveUpAt *time.Time `json:"gave_up_at,omitempty"`
}

// PlacementReason is why one node does not fit.
type PlacementReason struct {
	Node    string   `json:"node"`
	Reasons []string `json:"reasons"`
}

// VMCreate asks for a new VM.
type VMCreate struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	CPUs        int               `json:"cpus"`
	MemoryBytes Bytes             `json:"memory_bytes"`
	// Machine is what the guest sees beside that.
	Machine *VMMachine `json:"machine,omitempty"`
	// Image is the name or id of the image it is made from.
	Image string `json:"image,omitempty"`
	// Disks in the order the guest sees them. The first of a VM from a disk image
	// is made from the image.
	Disks []VMDiskCreate `json:"disks,omitempty"`
	NICs  []VMNICCreate  `json:"nics,omitempty"`
	// CloudInit is what the guest is told at its first boot.
	CloudInit *VMCloudInit `json:"cloud_init,omitempty"`
	// SeedImage is the name or id of a CD (an image of type iso) that the guest finds
	// in its drive instead.
	SeedImage string `json:"seed_image,omitempty"`
	// CDROM is the name or id of a CD in the drive whose medium changes at any time.
	CDROM string `json:"cdrom,omitempty"`
	// Protected refuses its deletion, and that of its disks, until it is taken away.
	Protected bool `json:"protected,omitempty"`
	// RestartPolicy is never, on_failure or always; never when absent.
	RestartPolicy string `json:"restart_policy,omitempty"`
	// DrainPolicy is live, cold, stop or refuse; live when absent.
	DrainPolicy string `json:"drain_policy,omitempty"`
	// Autostart: is it started again when its node's host starts, if it ran? True when
	// absent.
	Autostart *bool `json:"autostart,omitempty"`
	// StartOrder and StartDelaySeconds: 0 to 1000, and 0 to 3600.
	StartOrder        int   `json:"start_order,omitempty"`
	StartDelaySeconds int64 `json:"start_delay_seconds,omitempty"`
	// CPUWeight is 1 to 10000, 100 when absent.
	CPUWeight int `json:"cpu_weight,omitempty"`
	// CPUCapPercent is in percent of one processor; absent for no cap.
	CPUCapPercent int `json:"cpu_cap_percent,omitempty"`
	// Start it once it is made?
	Start bool `json:"start,omitempty"`
	// Node restricts placement to one node.
	Node string `json:"node,omitempty"`
}

// VMDiskCreate is a disk wanted.
type VMDiskCreate struct {
	// SizeBytes may be left out with an image: then it is the image's.
	SizeBytes Bytes `json:"size_bytes,omitempty"`
	// Image is the name or id of the disk image it is made from.
	Image string `json:"image,omitempty"`
	// Pool is the name or id of the storage pool that it is to be in; absent for the VM's
	// node.
	Pool string `json:"pool,omitempty"`
	// Limits bound what the guest does on it.
	Limits *DiskLimits `json:"limits,omitempty"`
}

// VMDiskPatch changes a disk: its size or its limits.
type VMDiskPatch struct {
	// SizeBytes is its new size; a disk never gets smaller.
	SizeBytes Bytes `json:"size_bytes,omitempty"`
	// Limits are all of them; with nothing in it, there are none.
	Limits *DiskLimits `json:"limits,omitempty"`
}

// VMNICCreate is a network interface wanted.
type VMNICCreate struct {
	// Bridge of the node that it joins, if the node's operator lets guests onto it;
	// absent for a user-mode network of its own.
	Bridge   string    `json:"bridge,omitempty"`
	Forwards []Forward `json:"forwards,omitempty"`
}

// VMPatch changes a VM. Fields that are absent stay.
type VMPatch struct {
	Name   *string            `json:"name,omitempty"`
	Labels *map[string]string `json:"labels,omitempty"`
	// CPUs and MemoryBytes change while the VM is stopped.
	CPUs        *int   `json:"cpus,omitempty"`
	MemoryBytes *Bytes `json:"memory_bytes,omitempty"`
	// Machine changes while the VM is stopped.
	Machine *VMMachine `json:"machine,omitempty"`
	// CloudInit is the whole of it, and changes while the VM is stopped; one with
	// nothing in it takes it away.
	CloudInit *VMCloudInit `json:"cloud_init,omitempty"`
	// SeedImage is the CD that the guest finds in its drive; it changes while the VM
	// is stopped, and empty takes it away. A VM has one of the two.
	SeedImage *string `json:"seed_image,omitempty"`
	// Protected changes at any time.
	Protected *bool `json:"protected,omitempty"`
	// RestartPolicy changes at any time; what it had in mind is forgotten.
	RestartPolicy *string `json:"restart_policy,omitempty"`
	// DrainPolicy changes at any time.
	DrainPolicy *string `json:"drain_policy,omitempty"`
	// Autostart, StartOrder and StartDelaySeconds change at any time, and count for the
	// next start of the node's host.
	Autostart         *bool  `json:"autostart,omitempty"`
	StartOrder        *int   `json:"start_order,omitempty"`
	StartDelaySeconds *int64 `json:"start_delay_seconds,omitempty"`
	// CPUWeight and CPUCapPercent change at any time; a guest that runs has them at
	// once, by the job that the answer's status names. A cap of 0 is none.
	CPUWeight     *int `json:"cpu_weight,omitempty"`
	CPUCapPercent *int `json:"cpu_cap_percent,omitempty"`
}

// VMCDROMAttach puts a CD into a VM's drive.
type VMCDROMAttach struct {
	// Image is the name or id of a CD, an image of type iso.
	Image string `json:"image"`
	// Replace takes out what is in the drive; a drive with another CD in it is refused
	// otherwise.
	Replace bool `json:"replace,omitempty"`
	// Force takes a CD that the guest has in use.
	Force bool `json:"force,omitempty"`
}

// VMCDROMEject empties a VM's drive.
type VMCDROMEject struct {
	// Force takes a CD that the guest has in use.
	Force bool `json:"force,omitempty"`
}

// VMClone asks for a VM made from another one.
type VMClone struct {
	// Name of the new VM.
	Name string `json:"name"`
	// Labels of the new VM; those of the original when absent.
	Labels *map[string]string `json:"labels,omitempty"`
}

// VMStop says how to stop a VM.
type VMStop struct {
	// GraceSeconds is how long the guest may take to shut down before it is
	// powered off: 0 to 3600, 60 by default.
	GraceSeconds *int `json:"grace_seconds,omitempty"`
	// Force powers it off at once.
	Force bool `json:"force,omitempty"`
}
