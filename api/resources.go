package api

import (
	"encoding/json"
	"time"
)

// Node is a host.
type Node struct {
	Meta
	Spec   NodeSpec   `json:"spec"`
	Status NodeStatus `json:"status"`
}

// NodeSpec is what the operator decided about a node.
type NodeSpec struct {
	// Schedulable: is it given new VMs? False after cordon.
	Schedulable bool `json:"schedulable"`
	// ShutdownPolicy is what the node does with its guests when its host shuts down in
	// order: stop (ask them, then power them off), suspend or leave.
	ShutdownPolicy string `json:"shutdown_policy"`
	// MigrationsOut and MigrationsIn are how many VMs may leave it, and come to it, at once.
	MigrationsOut int `json:"migrations_out"`
	MigrationsIn  int `json:"migrations_in"`
	// MigrationBytesPerSecond is what it gives to all of its migrations together, from it and
	// to it, which share it fairly; absent for no limit.
	MigrationBytesPerSecond Bytes `json:"migration_bytes_per_second,omitempty"`
}

// NodePatch changes a node. Fields that are absent stay.
type NodePatch struct {
	ShutdownPolicy *string `json:"shutdown_policy,omitempty"`
	MigrationsOut  *int    `json:"migrations_out,omitempty"`
	MigrationsIn   *int    `json:"migrations_in,omitempty"`
	// MigrationBytesPerSecond is at least a mebibyte; 0 lifts the limit.
	MigrationBytesPerSecond *Bytes `json:"migration_bytes_per_second,omitempty"`
}

// NodeStatus is what a node is and does.
type NodeStatus struct {
	// State is ready, cordoned, unknown (its lease has run out) or quarantined (it did
	// what no agent does, and is not spoken with until it is released).
	State        string    `json:"state"`
	Reason       string    `json:"reason,omitempty"`
	SeenAt       time.Time `json:"seen_at"`
	Simulated    bool      `json:"simulated,omitempty"`
	NodeEpoch    int64     `json:"node_epoch"`
	AgentVersion string    `json:"agent_version"`
	// CertificateExpiresAt is when the node's certificate ends; agents renew at two
	// thirds of its life. Absent while it is not known.
	CertificateExpiresAt *time.Time `json:"certificate_expires_at,omitempty"`
	VMs                  int        `json:"vms"`
	// StoragePools that it has.
	StoragePools []NodePool `json:"storage_pools,omitempty"`
	Capacity     Resources  `json:"capacity"`
	Used         Resources  `json:"used"`
	Inventory    Inventory  `json:"inventory"`
}

// Resources are what VMs take of a node.
type Resources struct {
	CPUs        int   `json:"cpus"`
	MemoryBytes Bytes `json:"memory_bytes"`
	DiskBytes   Bytes `json:"disk_bytes"`
}

// Inventory is what an agent found on its host.
type Inventory struct {
	Hostname           string          `json:"hostname"`
	Kernel             string          `json:"kernel"`
	OS                 string          `json:"os"`
	CPUModel           string          `json:"cpu_model"`
	CPUs               int             `json:"cpus"`
	MemoryBytes        Bytes           `json:"memory_bytes"`
	NUMA               []NUMANode      `json:"numa"`
	Disks              []HostDisk      `json:"disks"`
	HugePages          []HugePages     `json:"huge_pages"`
	PCI                []PCIDevice     `json:"pci"`
	Interfaces         []HostInterface `json:"interfaces"`
	Bridges            []HostBridge    `json:"bridges"`
	Hypervisor         string          `json:"hypervisor"`
	HypervisorVersion  string          `json:"hypervisor_version"`
	Acceleration       string          `json:"acceleration"`
	AccelerationReason string          `json:"acceleration_reason,omitempty"`
	// MachineTypes are the boards that guests here can have, newest first; CPUModels
	// are the processors.
	MachineTypes []string `json:"machine_types"`
	CPUModels    []string `json:"cpu_models"`
	// Firmware is what guests here can start by.
	Firmware []string `json:"firmware"`
	// LiveMigration: can guests that execute be moved from here and to here?
	LiveMigration bool `json:"live_migration"`
	// WarmMigration: can their disks be copied ahead, in rounds?
	WarmMigration bool     `json:"warm_migration"`
	Confinement   []string `json:"confinement"`
	// Unconfined is what could isolate guests and is not available, with the reason.
	Unconfined []string `json:"unconfined"`
	// Limits are the kinds of limits that the node can set on guests: cpu_weight,
	// cpu_cap, disk_io.
	Limits []string `json:"limits"`
	// ImageCacheBytes is how much disk image files may take for later.
	ImageCacheBytes Bytes `json:"image_cache_bytes,omitempty"`
}

// NUMANode is one memory node of a host.
type NUMANode struct {
	ID          int    `json:"id"`
	CPUs        string `json:"cpus"`
	MemoryBytes Bytes  `json:"memory_bytes"`
}

// HostBridge is a Linux bridge of a host.
type HostBridge struct {
	Name string `json:"name"`
	// Allowed: does the node's operator let guests onto it?
	Allowed bool `json:"allowed"`
}

// HostDisk is a block device of a host.
type HostDisk struct {
	Name       string `json:"name"`
	Model      string `json:"model,omitempty"`
	SizeBytes  Bytes  `json:"size_bytes"`
	Rotational bool   `json:"rotational"`
}

// HugePages is a pool of large memory pages of one size.
type HugePages struct {
	SizeBytes Bytes `json:"size_bytes"`
	// Total and Free are numbers of pages.
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// PCIDevice is a device of a host that a VM could be given.
type PCIDevice struct {
	// Address is domain:bus:device.function.
	Address string `json:"address"`
	// Class, Vendor and Device are numbers of the PCI SIG, in hexadecimal.
	Class  string `json:"class"`
	Vendor string `json:"vendor"`
	Device string `json:"device"`
	// Driver holds it on the host; absent when none does.
	Driver string `json:"driver,omitempty"`
	// IOMMUGroup it shares with others; absent without an IOMMU.
	IOMMUGroup string `json:"iommu_group,omitempty"`
	// NUMANode is -1 when it belongs to none.
	NUMANode int `json:"numa_node"`
}

// HostInterface is a physical network interface of a host.
type HostInterface struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"`
	// Up: is there a carrier?
	Up bool `json:"up"`
	// SpeedMbps is absent when it is not told.
	SpeedMbps int64 `json:"speed_mbps,omitempty"`
	MTU       int   `json:"mtu,omitempty"`
}

// NodeToken is a fresh join token: it is shown once.
type NodeToken struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
	// Command is what to run on the new host.
	Command string `json:"command"`
}

// Image is what VMs are made from.
type Image struct {
	Meta
	Spec   ImageSpec   `json:"spec"`
	Status ImageStatus `json:"status"`
}

// ImageSpec is what an image is.
type ImageSpec struct {
	// Type is disk or kernel.
	Type    string `json:"type"`
	Cmdline string `json:"cmdline,omitempty"`
	// Aliases are further names of the image. One can be moved to another image; VMs
	// stay with the image they were made from.
	Aliases []string `json:"aliases"`
}

// ImageStatus is how far an image is.
type ImageStatus struct {
	// State is uploading, ready or deleting.
	State string      `json:"state"`
	Files []ImageFile `json:"files"`
	// Job deletes the image, brings it a file, or makes one that guests can use of what
	// came.
	Job string `json:"job,omitempty"`
}

// ImageFile is one file of an image.
type ImageFile struct {
	// Role is disk, kernel, initrd or iso.
	Role         string `json:"role"`
	SHA256       string `json:"sha256"`
	SizeBytes    Bytes  `json:"size_bytes"`
	Format       string `json:"format"`
	VirtualBytes Bytes  `json:"virtual_bytes,omitempty"`
	// Source is what the file was converted from; absent when it came as it is.
	Source *ImageSource `json:"source,omitempty"`
}

// ImageSource is a disk in another program's format, as it came.
type ImageSource struct {
	SHA256 string `json:"sha256"`
	// Format is vmdk, vhd, vhdx or vdi.
	Format string `json:"format"`
}

// ImageCreate asks for a new image; its files are uploaded next, one by one, to
// PUT /images/{image}/files/{role}, and with the last one it is ready.
type ImageCreate struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Cmdline string `json:"cmdline,omitempty"`
}

// ImageUploadCreate announces a file of an image; its bytes are sent next, in as
// many parts as it takes, to PATCH /images/{image}/uploads/{upload}.
type ImageUploadCreate struct {
	// File is disk, kernel, initrd or iso.
	File      string `json:"file"`
	SizeBytes Bytes  `json:"size_bytes"`
	// SHA256 is what the file has to be once it is there, in lower-case hexadecimal
	// digits; absent to promise nothing.
	SHA256 string `json:"sha256,omitempty"`
}

// ImageFetch has a server read a file of an image from elsewhere.
type ImageFetch struct {
	// File is disk, kernel, initrd or iso.
	File string `json:"file"`
	// URL is http or https, without a name and a password. Where it leads, and each
	// redirect, must be the internet's, or a network that an operator has allowed.
	URL string `json:"url"`
	// SHA256 is what the file must be, in lower-case hexadecimal digits; absent to take
	// what comes.
	SHA256 string `json:"sha256,omitempty"`
}

// ImageCapture makes an image's disk of one of a stopped VM.
type ImageCapture struct {
	// VM is its name or id.
	VM string `json:"vm"`
	// Disk is its slot or id.
	Disk string `json:"disk"`
}

// ImageUpload is a file of an image on its way. Only who began it sees it.
type ImageUpload struct {
	Kind string `json:"kind"` // "image_upload"
	ID   string `json:"id"`
	// Image is the image's id.
	Image     string `json:"image"`
	File      string `json:"file"`
	SizeBytes Bytes  `json:"size_bytes"`
	SHA256    string `json:"sha256,omitempty"`
	// OffsetBytes is how much has arrived for good: the next part begins there.
	OffsetBytes Bytes `json:"offset_bytes"`
	// Complete: it was looked into and is the image's.
	Complete bool `json:"complete"`
	// Server is the address of the server whose folder of images has what arrived.
	Server    string    `json:"server,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is when it is removed, unless more of it arrives before.
	ExpiresAt time.Time `json:"expires_at"`
}

// Job is a change under way, or its record.
type Job struct {
	Kind string `json:"kind"` // "job"
	ID   string `json:"id"`
	// Type is the workflow, such as vm.start.
	Type   string    `json:"type"`
	Target JobTarget `json:"target"`
	// State is queued, running, waiting, unwinding, succeeded, failed, cancelled or
	// needs_attention.
	State           string     `json:"state"`
	Progress        int        `json:"progress"` // percent
	WaitReason      string     `json:"wait_reason,omitempty"`
	Cancellable     bool       `json:"cancellable"`
	CancelRequested bool       `json:"cancel_requested,omitempty"`
	Error           *JobError  `json:"error,omitempty"`
	Steps           []JobStep  `json:"steps,omitempty"`
	CreatedBy       string     `json:"created_by"`
	Revision        int64      `json:"revision"`
	CreatedAt       time.Time  `json:"created_at"`
	StartedAt       *time.Time `json:"started_at,omitempty"`
	FinishedAt      *time.Time `json:"finished_at,omitempty"`
}

// Ended tells whether nothing will happen to the job any more by itself.
func (j Job) Ended() bool {
	switch j.State {
	case "succeeded", "failed", "cancelled", "needs_attention":
		return true
	}
	return false
}

// JobTarget is the object a job is about.
type JobTarget struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

// JobError is why a job failed.
type JobError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// JobStep is one step of a job, as its journal has it.
type JobStep struct {
	Name string `json:"name"`
	// State is running, done, failed, undoing or undone.
	State      string     `json:"state"`
	Error      string     `json:"error,omitempty"`
	StartedAt  time.Time  `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

// Event is a committed change. Seq orders all events; readers resume after it.
type Event struct {
	Seq    int64           `json:"seq"`
	Kind   string          `json:"kind"` // "vm.updated"
	Object JobTarget       `json:"object"`
	Job    string          `json:"job,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
	At     time.Time       `json:"at"`
}

// Token is an API token's record; the token itself is only in the answer to its
// creation.
type Token struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Role       string     `json:"role"`
	Token      string     `json:"token,omitempty"`
	CreatedBy  string     `json:"created_by"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
}

// TokenCreate asks for an API token.
type TokenCreate struct {
	Name string `json:"name"`
	// Role is administrator or reader.
	Role string `json:"role"`
	// ExpiresInSeconds is how long it is good; absent for 90 days.
	ExpiresInSeconds *int64 `json:"expires_in_seconds,omitempty"`
}

// ConsoleTicket opens the console of a VM once, and only of the incarnation that
// there was when it was made. The answer is the only place that ever holds it.
type ConsoleTicket struct {
	Ticket    string    `json:"ticket"`
	ExpiresAt time.Time `json:"expires_at"`
	// Protocols are the subprotocols to ask for the WebSocket with, in place of a
	// token; the ticket is in one of them.
	Protocols []string `json:"protocols"`
}

// Setup spends the one-time setup token for a first administrator's API token.
type Setup struct {
	SetupToken string `json:"setup_token"`
	Name       string `json:"name"`
}

// System is what a server says of its cluster.
type System struct {
	Cluster string `json:"cluster"`
	Server  string `json:"server"`
	Version string `json:"version"`
	// Fingerprint is of the certificate this server shows, SHA-256.
	Fingerprint string   `json:"fingerprint"`
	Servers     []string `json:"servers"`
	// SetupDone: has the setup token been spent?
	SetupDone bool `json:"setup_done"`
	// RecoveryHold says what is held because the database knows less than the nodes;
	// absent when nothing is.
	RecoveryHold string `json:"recovery_hold,omitempty"`
	Principal    string `json:"principal"`
	Role         string `json:"role"`
}

// CA is the cluster's certificate authority.
type CA struct {
	// CertificatePEM is its root certificate; Fingerprint that certificate's SHA-256.
	CertificatePEM string    `json:"certificate_pem"`
	Fingerprint    string    `json:"fingerprint"`
	ExpiresAt      time.Time `json:"expires_at"`
}

// Task is a reconciler's last activations on one server.
type Task struct {
	Name        string          `json:"name"`
	PeriodMS    int64           `json:"period_ms"`
	LeaderOnly  bool            `json:"leader_only"`
	Active      bool            `json:"active"`
	Running     bool            `json:"running"`
	Activations int64           `json:"activations"`
	Failures    int64           `json:"failures"`
	LastStart   *time.Time      `json:"last_start,omitempty"`
	LastTookMS  float64         `json:"last_took_ms"`
	LastStatus  json.RawMessage `json:"last_status,omitempty"`
	LastError   string          `json:"last_error,omitempty"`
}

// AuditRecord is one attempt at a change.
type AuditRecord struct {
	Seq       int64          `json:"seq"`
	At        time.Time      `json:"at"`
	Principal string         `json:"principal"`
	Role      string         `json:"role"`
	Origin    string         `json:"origin"`
	Action    string         `json:"action"`
	Object    JobTarget      `json:"object"`
	Job       string         `json:"job,omitempty"`
	Outcome   string         `json:"outcome"`
	RequestID string         `json:"request_id,omitempty"`
	Detail    map[string]any `json:"detail,omitempty"`
}

// AuditVerified is the result of walking the audit chain.
type AuditVerified struct {
	Records int64  `json:"records"`
	Intact  bool   `json:"intact"`
	Problem string `json:"problem,omitempty"`
}
