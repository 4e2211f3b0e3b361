package store

import (
	"encoding/json"
	"time"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// The documents kept in JSONB columns. Their field names are those of the
// database, not of the domain: renaming a Go field must not lose data.

// inventoryDoc is node.Inventory.
type inventoryDoc struct {
	Hostname           string         `json:"hostname"`
	Kernel             string         `json:"kernel"`
	OS                 string         `json:"os"`
	CPUModel           string         `json:"cpu_model"`
	CPUs               int            `json:"cpus"`
	MemoryBytes        int64          `json:"memory_bytes"`
	NUMA               []numaNodeDoc  `json:"numa,omitempty"`
	Disks              []diskDoc      `json:"disks,omitempty"`
	HugePages          []hugePagesDoc `json:"huge_pages,omitempty"`
	PCI                []pciDeviceDoc `json:"pci,omitempty"`
	Interfaces         []interfaceDoc `json:"interfaces,omitempty"`
	Bridges            []bridgeDoc    `json:"bridges,omitempty"`
	Hypervisor         string         `json:"hypervisor"`
	HypervisorVersion  string         `json:"hypervisor_version"`
	Acceleration       string         `json:"acceleration"`
	AccelerationReason string         `json:"acceleration_reason,omitempty"`
	MachineTypes       []string       `json:"machine_types,omitempty"`
	CPUModels          []string       `json:"cpu_models,omitempty"`
	Firmware           []string       `json:"firmware,omitempty"`
	LiveMigration      bool           `json:"live_migration,omitempty"`
	WarmMigration      bool           `json:"warm_migration,omitempty"`
	CPUFlags           string         `json:"cpu_flags,omitempty"`
	Confinement        []string       `json:"confinement,omitempty"`
	Unconfined         []string       `json:"unconfined,omitempty"`
	Limits             []string       `json:"limits,omitempty"`
	StorageBytes       int64          `json:"storage_bytes"`
	ImageCacheBytes    int64          `json:"image_cache_bytes,omitempty"`
}

type numaNodeDoc struct {
	ID          int    `json:"id"`
	CPUs        string `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"`
}

type diskDoc struct {
	Name       string `json:"name"`
	Model      string `json:"model,omitempty"`
	SizeBytes  int64  `json:"size_bytes"`
	Rotational bool   `json:"rotational,omitempty"`
}

type hugePagesDoc struct {
	SizeBytes int64 `json:"size_bytes"`
	Total     int64 `json:"total"`
	Free      int64 `json:"free"`
}

type pciDeviceDoc struct {
	Address    string `json:"address"`
	Class      string `json:"class"`
	Vendor     string `json:"vendor"`
	Device     string `json:"device"`
	Driver     string `json:"driver,omitempty"`
	IOMMUGroup string `json:"iommu_group,omitempty"`
	NUMANode   int    `json:"numa_node"`
}

type interfaceDoc struct {
	Name  string `json:"name"`
	MAC   string `json:"mac,omitempty"`
	Up    bool   `json:"up"`
	Speed int64  `json:"speed_mbps,omitempty"`
	MTU   int    `json:"mtu,omitempty"`
}

type bridgeDoc struct {
	Name    string `json:"name"`
	Allowed bool   `json:"allowed,omitempty"`
}

func writeInventory(in node.Inventory) ([]byte, error) {
	d := inventoryDoc{
		Hostname: in.Hostname, Kernel: in.Kernel, OS: in.OS, CPUModel: in.CPUModel, CPUs: in.CPUs, MemoryBytes: in.MemoryBytes,
		Hypervisor: in.Hypervisor, HypervisorVersion: in.HypervisorVersion,
		Acceleration: in.Acceleration, AccelerationReason: in.AccelerationReason,
		MachineTypes: in.MachineTypes, CPUModels: in.CPUModels, Firmware: in.Firmware, LiveMigration: in.LiveMigration, WarmMigration: in.WarmMigration, CPUFlags: in.CPUFlags,
		Confinement: in.Confinement, Unconfined: in.Unconfined, Limits: in.Limits, StorageBytes: in.StorageBytes, ImageCacheBytes: in.ImageCacheBytes,
	}
	for _, n := range in.NUMA {
		d.NUMA = append(d.NUMA, numaNodeDoc(n))
	}
	for _, disk := range in.Disks {
		d.Disks = append(d.Disks, diskDoc(disk))
	}
	for _, h := range in.HugePages {
		d.HugePages = append(d.HugePages, hugePagesDoc(h))
	}
	for _, p := range in.PCI {
		d.PCI = append(d.PCI, pciDeviceDoc(p))
	}
	for _, i := range in.Interfaces {
		d.Interfaces = append(d.Interfaces, interfaceDoc(i))
	}
	for _, b := range in.Bridges {
		d.Bridges = append(d.Bridges, bridgeDoc(b))
	}
	return encode(d)
}

func readInventory(raw []byte) (node.Inventory, error) {
	var d inventoryDoc
	if err := json.Unmarshal(raw, &d); err != nil {
		return node.Inventory{}, err
	}
	in := node.Inventory{
		Hostname: d.Hostname, Kernel: d.Kernel, OS: d.OS, CPUModel: d.CPUModel, CPUs: d.CPUs, MemoryBytes: d.MemoryBytes,
		Hypervisor: d.Hypervisor, HypervisorVersion: d.HypervisorVersion,
		Acceleration: d.Acceleration, AccelerationReason: d.AccelerationReason,
		MachineTypes: d.MachineTypes, CPUModels: d.CPUModels, Firmware: d.Firmware, LiveMigration: d.LiveMigration, WarmMigration: d.WarmMigration, CPUFlags: d.CPUFlags,
		Confinement: d.Confinement, Unconfined: d.Unconfined, Limits: d.Limits, StorageBytes: d.StorageBytes, ImageCacheBytes: d.ImageCacheBytes,
	}
	for _, b := range d.Bridges {
		in.Bridges = append(in.Bridges, node.Bridge(b))
	}
	for _, n := range d.NUMA {
		in.NUMA = append(in.NUMA, node.NUMANode(n))
	}
	for _, disk := range d.Disks {
		in.Disks = append(in.Disks, node.Disk(disk))
	}
	for _, h := range d.HugePages {
		in.HugePages = append(in.HugePages, node.HugePages(h))
	}
	for _, p := range d.PCI {
		in.PCI = append(in.PCI, node.PCIDevice(p))
	}
	for _, i := range d.Interfaces {
		in.Interfaces = append(in.Interfaces, node.Interface(i))
	}
	return in, nil
}

// unplacedDoc is vm.Unplaced.
type unplacedDoc struct {
	Summary string            `json:"summary"`
	Nodes   []unplacedNodeDoc `json:"nodes,omitempty"`
	At      time.Time         `json:"at"`
}

type unplacedNodeDoc struct {
	Node    string   `json:"node"`
	Reasons []string `json:"reasons"`
}

func writeUnplaced(why vm.Unplaced) ([]byte, error) {
	d := unplacedDoc{Summary: why.Summary, At: why.At}
	for _, n := range why.Nodes {
		d.Nodes = append(d.Nodes, unplacedNodeDoc(n))
	}
	return encode(d)
}

// readUnplaced gives nil when no document is kept.
func readUnplaced(raw []byte) (*vm.Unplaced, error) {
	if raw == nil {
		return nil, nil
	}
	var d unplacedDoc
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	why := vm.Unplaced{Summary: d.Summary, At: d.At}
	for _, n := range d.Nodes {
		why.Nodes = append(why.Nodes, vm.UnplacedNode(n))
	}
	return &why, nil
}

// cloudInitDoc is vm.CloudInit.
type cloudInitDoc struct {
	Hostname          string   `json:"hostname,omitempty"`
	SSHAuthorizedKeys []string `json:"ssh_authorized_keys,omitempty"`
	UserData          string   `json:"user_data,omitempty"`
	NetworkConfig     string   `json:"network_config,omitempty"`
	MetaData          string   `json:"meta_data,omitempty"`
}

// writeCloudInit gives nil when there is nothing to keep.
func writeCloudInit(c *vm.CloudInit) ([]byte, error) {
	if c == nil || c.Empty() {
		return nil, nil
	}
	return encode(cloudInitDoc(*c))
}

// readCloudInit gives nil when no document is kept.
func readCloudInit(raw []byte) (*vm.CloudInit, error) {
	if raw == nil {
		return nil, nil
	}
	var d cloudInitDoc
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	c := vm.CloudInit(d)
	return &c, nil
}

// forwardDoc is vm.Forward.
type forwardDoc struct {
	Protocol  string `json:"protocol"`
	HostIP    string `json:"host_ip,omitempty"`
	HostPort  int    `json:"host_port"`
	GuestPort int    `json:"guest_port"`
}

// imageFileDoc is image.File as the list's query builds it.
type imageFileDoc struct {
	Role         image.Role `json:"role"`
	SHA256       string     `json:"sha256"`
	SizeBytes    int64      `json:"size_bytes"`
	Format       string     `json:"format"`
	VirtualBytes int64      `json:"virtual_bytes"`
	SourceSHA256 string     `json:"source_sha256"`
	SourceFormat string     `json:"source_format"`
}

func readImageFiles(raw []byte) ([]image.File, error) {
	var docs []imageFileDoc
	if err := json.Unmarshal(raw, &docs); err != nil {
		return nil, err
	}
	var files []image.File
	for _, d := range docs {
		f := image.File{Role: d.Role, SHA256: d.SHA256, SizeBytes: d.SizeBytes, Format: d.Format, VirtualBytes: d.VirtualBytes}
		if d.SourceSHA256 != "" {
			f.Source = &image.Source{SHA256: d.SourceSHA256, Format: d.SourceFormat}
		}
		files = append(files, f)
	}
	return files, nil
}

// encode writes a document; failing to is a fault of the program.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, errs.New(errs.Internal, "a document cannot be written").Because(err)
	}
	return b, nil
}
