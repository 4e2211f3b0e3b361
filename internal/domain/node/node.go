// Package node holds the rules of nodes: what a node is, when it takes new VMs,
// and what it tells about itself.
package node

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// State is what the operator decided about a node.
type State string

// The states of a node.
const (
	Active   State = "active"
	Cordoned State = "cordoned" // keeps its VMs, takes no new ones
	Removed  State = "removed"  // its certificate is worth nothing any more
)

// Node is a host as the control plane knows it.
type Node struct {
	ID        id.ID
	Name      string
	State     State
	Simulated bool
	Shutdown  ShutdownPolicy
	Epoch     gen.NodeEpoch
	// Reporting is this server's own judgement of the node's lease.
	Reporting bool
	// Held: is it in recovery hold?
	Held bool
	// Misbehaved, unless empty, is what it is in quarantine for.
	Misbehaved   string
	LeaseSeq     int64
	SeenAt       time.Time // zero before the first contact
	AgentVersion string
	KeyHash      []byte
	// CertificateExpiresAt is when the certificate ends; zero while not known.
	CertificateExpiresAt time.Time
	Inventory            Inventory
	Capacity             Resources
	// Used is what running VMs, and those about to run, take; disks count always.
	Used Resources
	// Committed is what its VMs take when all of them run.
	Committed Resources
	VMs       int
	// Migrations are its limits of them.
	Migrations Migrations
	// Pools are the storage pools that it has.
	Pools []Pool
	// Copies are those of VMs on their way here, or that left one behind.
	Copies    int
	Revision  gen.Revision
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Resources are what VMs take of a node.
type Resources struct {
	CPUs        int
	MemoryBytes int64
	DiskBytes   int64
}

// Inventory is what an agent found on its host.
type Inventory struct {
	Hostname    string
	Kernel      string
	OS          string
	CPUModel    string
	CPUs        int
	MemoryBytes int64
	NUMA        []NUMANode
	Disks       []Disk
	HugePages   []HugePages
	PCI         []PCIDevice
	Interfaces  []Interface
	Bridges     []Bridge
	// Hypervisor and its version, and how guest code executes: proved, not guessed.
	Hypervisor         string
	HypervisorVersion  string
	Acceleration       string
	AccelerationReason string
	// MachineTypes are the boards that guests here can have, newest first;
	// CPUModels are the processors. Both are empty of a node that did not say.
	MachineTypes []string
	CPUModels    []string
	// Firmware is what guests here can start by; empty of a node that did not say, which
	// is BIOS.
	Firmware []string
	// LiveMigration: can guests that execute be moved from here and to here?
	LiveMigration bool
	// WarmMigration: can their disks be copied ahead, in rounds?
	WarmMigration bool
	// CPUFlags are the features of its processor, by Linux's names, parted by blanks; empty
	// of a node that did not say.
	CPUFlags string
	// Confinement lists what isolates a guest's process on this host.
	Confinement []string
	// Unconfined lists what could and does not, each with the reason.
	Unconfined []string
	// Limits are the kinds of limits that it can set on guests, as vm.LimitCPUCap.
	Limits []string
	// StorageBytes is the capacity of the place where volumes live.
	StorageBytes int64
	// ImageCacheBytes is how much of that image files may take for later; 0 of a
	// node that did not say.
	ImageCacheBytes int64
}

// NUMANode is one memory node of a host.
type NUMANode struct {
	ID          int
	CPUs        string // list format of Linux, such as "0-7,16-23"
	MemoryBytes int64
}

// Disk is a block device of a host.
type Disk struct {
	Name       string
	Model      string
	SizeBytes  int64
	Rotational bool
}

// HugePages is a pool of large memory pages of one size.
type HugePages struct {
	SizeBytes   int64
	Total, Free int64 // pages
}

// PCIDevice is a device of a host that a VM could be given.
type PCIDevice struct {
	Address string // domain:bus:device.function, such as "0000:3b:00.0"
	// Class, Vendor and Device are the PCI SIG's numbers, in hexadecimal.
	Class, Vendor, Device string
	// Driver that holds it on the host; empty when none does.
	Driver string
	// IOMMUGroup it shares with others; empty without an IOMMU, and then it can be
	// given to nobody.
	IOMMUGroup string
	NUMANode   int // -1 when it belongs to none
}

// Interface is a physical network interface of a host.
type Interface struct {
	Name string
	MAC  string
	Up   bool // is there a carrier?
	// Speed in megabits per second; 0 when it is not told.
	Speed int64
	MTU   int
}

// Bridge is a Linux bridge of a host.
type Bridge struct {
	Name string
	// Allowed: does the operator let guests onto it?
	Allowed bool
}

// CannotJoin says which of the bridges the node lacks, or lets no guest onto; empty
// when guests may join each.
func (n Node) CannotJoin(bridges []string) string {
	var why []string
	for _, b := range bridges {
		i := slices.IndexFunc(n.Inventory.Bridges, func(has Bridge) bool { return has.Name == b })
		switch {
		case i < 0:
			why = append(why, "has no bridge "+b)
		case !n.Inventory.Bridges[i].Allowed:
			why = append(why, "does not let guests onto bridge "+b)
		}
	}
	return strings.Join(why, " and ")
}

// Pool is a storage pool as a node has it.
type Pool struct {
	// ID is nil for one that the node has under another pool's name.
	ID id.ID
	// Name that the node has for it.
	Name string
	// Why it cannot be used there; empty when it can.
	Why string
}

// CannotUse says which of the storage pools, by name and id, the node lacks or cannot use;
// empty when it can use each.
func (n Node) CannotUse(pools map[string]id.ID) string {
	var why []string
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		i := slices.IndexFunc(n.Pools, func(p Pool) bool { return p.ID == pools[name] })
		switch {
		case i < 0:
			why = append(why, "has no pool "+name)
		case n.Pools[i].Why != "":
			why = append(why, "cannot use pool "+name+": it "+n.Pools[i].Why)
		}
	}
	return strings.Join(why, " and ")
}

// Takes tells whether the node may be given new VMs, and why not.
func (n Node) Takes() (ok bool, why string) {
	switch {
	case n.State == Removed:
		return false, "is removed"
	case n.State == Cordoned:
		return false, "is cordoned"
	case !n.Reporting:
		return false, "does not report"
	case n.Held:
		return false, "is in recovery hold"
	default:
		return true, ""
	}
}

// CannotLimit says which of the kinds of limits the node cannot set; empty when it
// can set each.
func (n Node) CannotLimit(kinds []string) string {
	var lacks []string
	for _, k := range kinds {
		if !slices.Contains(n.Inventory.Limits, k) {
			lacks = append(lacks, limitNames[k])
		}
	}
	if len(lacks) == 0 {
		return ""
	}
	return "cannot limit guests by " + strings.Join(lacks, " and ")
}

// limitNames are what kinds of limits are for people.
var limitNames = map[string]string{
	"cpu_weight": "a weight of CPUs", "cpu_cap": "a cap of CPUs", "disk_io": "rates of disks",
}

// Change tells whether the operator may put the node into the state.
func (n Node) Change(to State) error {
	if n.State == Removed {
		return errs.New(errs.InvalidState, "node %q is removed", n.Name)
	}
	if to == Removed && n.VMs > 0 {
		return errs.New(errs.InUse, "node %q still has %d VMs: delete or move them first; if its host is off for good, remove it by force", n.Name, n.VMs)
	}
	if to == Removed && n.Copies > 0 {
		return errs.New(errs.InUse, "node %q has copies of %d VMs that are being moved: wait for their migrations, or cancel them", n.Name, n.Copies)
	}
	return nil
}

// RemoveByForce tells whether the operator may remove the node together with the
// VMs on it: only one that is gone. Silent says that nobody has heard of it for
// longer than its lease, as a server that watched throughout tells.
func (n Node) RemoveByForce(silent bool) error {
	switch {
	case n.State == Removed:
		return errs.New(errs.InvalidState, "node %q is removed", n.Name)
	case n.Reporting && n.VMs == 0:
		return errs.New(errs.InvalidState, "node %q reports and has no VMs: remove it without force", n.Name)
	case n.Reporting:
		return errs.New(errs.InvalidState, "node %q reports, so it is not gone: delete or move its %d VMs and remove it without force, "+
			"or stop its agent and power its host off first", n.Name, n.VMs)
	case !silent:
		return errs.New(errs.InvalidState, "node %q may still report: nobody has watched it for the whole of its lease yet; try again in half a minute", n.Name)
	}
	return nil
}

// CPUOvercommit is how many vCPUs a node offers per CPU: guests idle most of the
// time, and a busy one only slows others down. Four is Nova's default since
// 2023 ("initial_cpu_allocation_ratio"). Memory is not overcommitted.
const CPUOvercommit = 4

// Schedulable is what a node offers to VMs.
func Schedulable(i Inventory) Resources {
	return Resources{CPUs: i.CPUs * CPUOvercommit, MemoryBytes: i.MemoryBytes, DiskBytes: i.StorageBytes}
}
