package nodelink

import (
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Header goes with every command about a VM. It is the fence.
type Header struct {
	Cluster    id.ID          `json:"cluster"`
	NodeEpoch  gen.NodeEpoch  `json:"node_epoch"`
	VM         id.ID          `json:"vm"`
	OwnerEpoch gen.OwnerEpoch `json:"owner_epoch"`
	// Operation is the job, and OpSeq its number among the jobs of this VM.
	Operation id.ID  `json:"operation"`
	OpSeq     int64  `json:"op_seq"`
	Step      string `json:"step"`
	// Attempt rises each time a server takes the job over.
	Attempt int64 `json:"attempt"`
	// BudgetMS is how long the step may take, in milliseconds from arrival; it is
	// relative because clocks differ.
	BudgetMS int64 `json:"budget_ms"`
	// Pools are the VM's volumes that are in a storage pool, each with the pool's id; what
	// is not named is as the node knows it.
	Pools map[id.ID]id.ID `json:"pools,omitempty"`
}

// Command is a message that goes down.
type Command interface{ Method() string }

// Fenced is a command about one VM.
type Fenced interface {
	Command
	Head() *Header
}

// Head gives the header itself, so that embedding it makes a command Fenced.
func (h *Header) Head() *Header { return h }

// ImageFile is a file of an image, named by its content.
type ImageFile struct {
	SHA256       string `json:"sha256"`
	SizeBytes    int64  `json:"size_bytes"`
	Format       string `json:"format"`
	VirtualBytes int64  `json:"virtual_bytes"`
}

// EnsureImages brings files into the node's image cache.
type EnsureImages struct {
	Header
	Files []ImageFile `json:"files"`
	// Tickets open a bulk stream per file, by its SHA256.
	Tickets map[string]string `json:"tickets"`
	// Sources are nodes that offer a file, by its SHA256; they are asked before the
	// server.
	Sources map[string][]ImageSource `json:"sources,omitempty"`
	// Look: fetch nothing, and say what is missing.
	Look bool `json:"look,omitempty"`
}

// Method implements Command.
func (*EnsureImages) Method() string { return "ensure_images" }

// EnsureReply answers EnsureImages.
type EnsureReply struct {
	// Missing are the SHA256 of files that are not there, or damaged.
	Missing []string `json:"missing,omitempty"`
}

// VolumeSpec is a volume wanted.
type VolumeSpec struct {
	ID        id.ID      `json:"id"`
	SizeBytes int64      `json:"size_bytes"`
	Base      *ImageFile `json:"base,omitempty"`
}

// CreateVolumes makes a VM's disks.
type CreateVolumes struct {
	Header
	Volumes []VolumeSpec `json:"volumes"`
}

// Method implements Command.
func (*CreateVolumes) Method() string { return "create_volumes" }

// VolumeCopy is a volume that is to have another's content.
type VolumeCopy struct {
	ID   id.ID `json:"id"`
	From id.ID `json:"from"`
}

// CopyVolumes makes a VM's disks from those of another VM on the same node.
// Refused while that one has a process.
type CopyVolumes struct {
	Header
	Source  id.ID        `json:"source"`
	Volumes []VolumeCopy `json:"volumes"`
}

// Method implements Command.
func (*CopyVolumes) Method() string { return "copy_volumes" }

// GrowVolume makes a disk larger, while the guest runs too. The size it has
// already is no error.
type GrowVolume struct {
	Header
	Volume    id.ID `json:"volume"`
	SizeBytes int64 `json:"size_bytes"`
}

// Method implements Command.
func (*GrowVolume) Method() string { return "grow_volume" }

// DeleteVolumes removes disks of a VM that stays. Refused while the VM has a
// process; what is not there is no error.
type DeleteVolumes struct {
	Header
	Volumes []id.ID `json:"volumes"`
}

// Method implements Command.
func (*DeleteVolumes) Method() string { return "delete_volumes" }

// SeedFile is a file of a seed.
type SeedFile struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// WriteSeed makes the VM's seed, the CD that cloud-init in its guest reads, beside
// the VM's disks, or makes it anew when it is to hold something else.
type WriteSeed struct {
	Header
	Files []SeedFile `json:"files"`
}

// Method implements Command.
func (*WriteSeed) Method() string { return "write_seed" }

// Machine is everything a node needs to launch a VM, with objects named by id
// and content, never by path.
type Machine struct {
	Name        string `json:"name"`
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"`
	// Type of the board and model of the processor; empty from a server that names
	// none.
	Type string `json:"type,omitempty"`
	CPU  string `json:"cpu,omitempty"`
	// Firmware is what it starts by; empty for BIOS.
	Firmware string     `json:"firmware,omitempty"`
	Kernel   *ImageFile `json:"kernel,omitempty"`
	Initrd   *ImageFile `json:"initrd,omitempty"`
	Cmdline  string     `json:"cmdline,omitempty"`
	Volumes  []id.ID    `json:"volumes"`
	NICs     []NIC      `json:"nics"`
	// Seed: does the guest find the VM's seed in its CD drive?
	Seed bool `json:"seed,omitempty"`
	// CD is what the guest finds there otherwise; nil for an image of none.
	CD *ImageFile `json:"cd,omitempty"`
	// Medium is what is in the drive whose medium changes while the guest runs; nil for
	// nothing.
	Medium *ImageFile `json:"medium,omitempty"`
	// Limits are what it may take of its node.
	Limits Limits `json:"limits,omitzero"`
}

// NIC is one network interface of a Machine.
type NIC struct {
	ID       id.ID     `json:"id"`
	MAC      string    `json:"mac"`
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

// Launch starts a new incarnation. From here on the node's own record says that
// the VM should run.
type Launch struct {
	Header
	Machine Machine `json:"machine"`
	// Resume: it goes on from the memory that Suspend has saved; refused where there is
	// none, as its absence is where there is one.
	Resume bool `json:"resume,omitempty"`
}

// Method implements Command.
func (*Launch) Method() string { return "launch" }

// Shutdown asks the guest to power off and waits up to the grace period. From
// here on the node's own record says that the VM should not run. A guest that
// is still there after the grace period is no error: the report says so.
type Shutdown struct {
	Header
	GraceMS int64 `json:"grace_ms"`
}

// Method implements Command.
func (*Shutdown) Method() string { return "shutdown" }

// PowerOff ends the process without asking the guest. With Discard, memory that was
// saved is given up, too; without, the VM is suspended where there is some.
type PowerOff struct {
	Header
	Discard bool `json:"discard,omitempty"`
}

// Method implements Command.
func (*PowerOff) Method() string { return "power_off" }

// Pause halts the vCPUs.
type Pause struct{ Header }

// Method implements Command.
func (*Pause) Method() string { return "pause" }

// Resume continues halted vCPUs.
type Resume struct{ Header }

// Method implements Command.
func (*Resume) Method() string { return "resume" }

// Erase removes everything the node holds of a VM whose process is gone, its
// volumes included, and keeps only the fence.
type Erase struct {
	Header
	Volumes []id.ID `json:"volumes"`
}

// Method implements Command.
func (*Erase) Method() string { return "erase" }

// DropImages removes files from the node's image cache; a file that a volume
// still stands on stays and is named in the error.
type DropImages struct {
	SHA256 []string `json:"sha256"`
}

// Method implements Command.
func (*DropImages) Method() string { return "drop_images" }

// Metrics asks for the agent's own metrics.
type Metrics struct{}

// Method implements Command.
func (*Metrics) Method() string { return "metrics" }

// MetricsReply is in Prometheus' text format.
type MetricsReply struct {
	Text string `json:"text"`
}

// Done is the reply of a command that has nothing to say.
type Done struct{}

// Report is what an agent observed of one incarnation. It is the reply of every
// command that changes one, and goes up by itself when something else did.
type Report struct {
	VM     id.ID          `json:"vm"`
	Epoch  gen.OwnerEpoch `json:"owner_epoch"`
	Seq    gen.ReportSeq  `json:"report_seq"`
	Phase  vm.Phase       `json:"phase"`
	Reason string         `json:"reason,omitempty"`
	Since  time.Time      `json:"since"`
	// Guest is what the guest said last; nil for nothing.
	Guest *GuestNote `json:"guest,omitempty"`
}

// Hello opens the uplink.
type Hello struct {
	Node         id.ID         `json:"node"`
	NodeEpoch    gen.NodeEpoch `json:"node_epoch"`
	AgentVersion string        `json:"agent_version"`
	Protocol     int           `json:"protocol"`
	Inventory    Inventory     `json:"inventory"`
	// Cluster is the incarnation that the node follows.
	Cluster id.ID `json:"cluster"`
	// Name is the one it joined under.
	Name string `json:"name,omitempty"`
	// Plan is the digest of the HostPlan that the node has; empty for none.
	Plan string `json:"plan,omitempty"`
	// Pools are the storage pools that the node has.
	Pools []Pool `json:"pools,omitempty"`
}

// Protocol is the version of the node link. Servers take this one and the one
// before; an agent of a later one is refused by name.
const Protocol = 1

// Welcome answers Hello.
type Welcome struct {
	Cluster id.ID `json:"cluster"`
	// Follows are the incarnations that this one follows on: a node of one of them
	// takes up this one, and from then on refuses commands of its predecessors.
	Follows []id.ID `json:"follows,omitempty"`
	// Servers are the addresses of all servers the cluster knows now.
	Servers []string `json:"servers"`
	// LeaseMS is how long the node counts as alive after a heartbeat was sent.
	LeaseMS int64 `json:"lease_ms"`
}

// Heartbeat renews the node's lease. Seq grows with each.
type Heartbeat struct {
	NodeEpoch gen.NodeEpoch `json:"node_epoch"`
	Seq       int64         `json:"seq"`
}

// HeartbeatReply answers Heartbeat.
type HeartbeatReply struct {
	// Servers are the addresses of all servers the cluster knows now; empty when
	// this one has not looked yet.
	Servers []string `json:"servers,omitempty"`
}

// MostReports of one message.
const MostReports = 500

// Reports carries observations up.
type Reports struct {
	NodeEpoch gen.NodeEpoch `json:"node_epoch"`
	Items     []Report      `json:"items"`
}

// Result is what became of one report.
type Result string

// The results.
const (
	Applied   Result = "applied"
	Stale     Result = "stale"
	NotPlaced Result = "not_placed"
	// Ahead: the report is of a later owner epoch than the database knows.
	Ahead Result = "ahead"
)

// ReportsReply answers Reports, item by item.
type ReportsReply struct {
	Results []Result `json:"results"`
}

// Inventory is node.Inventory on the wire.
type Inventory struct {
	Hostname           string      `json:"hostname"`
	Kernel             string      `json:"kernel"`
	OS                 string      `json:"os"`
	CPUModel           string      `json:"cpu_model"`
	CPUs               int         `json:"cpus"`
	MemoryBytes        int64       `json:"memory_bytes"`
	NUMA               []NUMANode  `json:"numa,omitempty"`
	Disks              []Disk      `json:"disks,omitempty"`
	HugePages          []HugePages `json:"huge_pages,omitempty"`
	PCI                []PCIDevice `json:"pci,omitempty"`
	Interfaces         []Interface `json:"interfaces,omitempty"`
	Bridges            []Bridge    `json:"bridges,omitempty"`
	Hypervisor         string      `json:"hypervisor"`
	HypervisorVersion  string      `json:"hypervisor_version"`
	Acceleration       string      `json:"acceleration"`
	AccelerationReason string      `json:"acceleration_reason,omitempty"`
	MachineTypes       []string    `json:"machine_types,omitempty"`
	CPUModels          []string    `json:"cpu_models,omitempty"`
	Firmware           []string    `json:"firmware,omitempty"`
	LiveMigration      bool        `json:"live_migration,omitempty"`
	WarmMigration      bool        `json:"warm_migration,omitempty"`
	CPUFlags           string      `json:"cpu_flags,omitempty"`
	Confinement        []string    `json:"confinement,omitempty"`
	Unconfined         []string    `json:"unconfined,omitempty"`
	Limits             []string    `json:"limits,omitempty"`
	StorageBytes       int64       `json:"storage_bytes"`
	// ImageCacheBytes is how much of that image files may take for later.
	ImageCacheBytes int64 `json:"image_cache_bytes,omitempty"`
	Simulated       bool  `json:"simulated,omitempty"`
}

// NUMANode is node.NUMANode on the wire.
type NUMANode struct {
	ID          int    `json:"id"`
	CPUs        string `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"`
}

// Disk is node.Disk on the wire.
type Disk struct {
	Name       string `json:"name"`
	Model      string `json:"model,omitempty"`
	SizeBytes  int64  `json:"size_bytes"`
	Rotational bool   `json:"rotational,omitempty"`
}

// HugePages is node.HugePages on the wire.
type HugePages struct {
	SizeBytes int64 `json:"size_bytes"`
	Total     int64 `json:"total"`
	Free      int64 `json:"free"`
}

// PCIDevice is node.PCIDevice on the wire.
type PCIDevice struct {
	Address    string `json:"address"`
	Class      string `json:"class"`
	Vendor     string `json:"vendor"`
	Device     string `json:"device"`
	Driver     string `json:"driver,omitempty"`
	IOMMUGroup string `json:"iommu_group,omitempty"`
	NUMANode   int    `json:"numa_node"`
}

// Interface is node.Interface on the wire.
type Interface struct {
	Name  string `json:"name"`
	MAC   string `json:"mac,omitempty"`
	Up    bool   `json:"up"`
	Speed int64  `json:"speed_mbps,omitempty"`
	MTU   int    `json:"mtu,omitempty"`
}

// Bridge is node.Bridge on the wire.
type Bridge struct {
	Name    string `json:"name"`
	Allowed bool   `json:"allowed,omitempty"`
}

// Names of the uplink's calls.
const (
	MethodHello     = "hello"
	MethodHeartbeat = "heartbeat"
	MethodReports   = "reports"
)

// ALPN protocol names on the API port.
const (
	ALPNNode = "novacron-node"
	ALPNBulk = "novacron-bulk"
	ALPNJoin = "novacron-join"
	// ALPNPeer is spoken between two nodes.
	ALPNPeer = "novacron-peer"
	// ALPNRenew is the only one that takes an expired certificate.
	ALPNRenew = "novacron-renew"
)

// JoinRequest asks for a node's first certificate. It travels under ALPNJoin,
// where the server is proved by the CA pin in the token and the agent by the
// token itself.
type JoinRequest struct {
	Token  string `json:"token"`
	Name   string `json:"name"`
	CSRPEM string `json:"csr_pem"`
	// Simulated nodes are marked as such for ever.
	Simulated bool `json:"simulated,omitempty"`
}

// JoinReply carries the certificate and where to dial.
type JoinReply struct {
	Node    id.ID      `json:"node"`
	Cluster id.ID      `json:"cluster"`
	CertPEM string     `json:"cert_pem"`
	CAPEM   string     `json:"ca_pem"`
	Servers []string   `json:"servers"`
	Error   *WireError `json:"error,omitempty"`
}

// RenewReply carries a new certificate for the key of the certificate that the
// agent presented under ALPNRenew. There is no request: the handshake, which
// proves the key, is one.
type RenewReply struct {
	CertPEM string     `json:"cert_pem"`
	Error   *WireError `json:"error,omitempty"`
}
