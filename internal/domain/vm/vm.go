package vm

import (
	"net/netip"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// View is everything known of one VM at one moment, from one query: the input
// of Appear and Decide.
type View struct {
	Intent Intent
	// Observed is the last report about the current owner epoch, or the newest
	// earlier one; nil when no incarnation was ever reported.
	Observed *Observation
	// Node is the VM's node; nil while none is chosen.
	Node *NodeView
	// Job is the job that holds the VM; nil when none does.
	Job *JobView
	// Volumes and NICs are in slot order.
	Volumes []Volume
	NICs    []NIC
	// Restarts is what became of it by its restart policy.
	Restarts Restarts
}

// Intent is what the user wants, and what the control plane decided of it.
type Intent struct {
	ID          id.ID
	ProjectID   id.ID
	Name        string
	Labels      map[string]string
	CPUs        int
	MemoryBytes int64
	// Hardware is what its guest sees beside that.
	Hardware  Hardware
	ImageID   *id.ID
	ImageName string
	// CloudInit is what its guest is told at its first boot; nil for nothing.
	CloudInit *CloudInit
	// SeedImage is what its guest finds in its CD drive instead; nil for nothing.
	SeedImage *CD
	// CDROM is what is in the drive whose medium changes at any time; nil for nothing.
	CDROM  *CD
	Policy Policy
	Limits Limits
	// PowerOn: does the user want it to run?
	PowerOn bool
	NodeID  *id.ID
	Epoch   gen.OwnerEpoch
	OpSeq   int64
	// Reserved: are CPU and memory counted on its node?
	Reserved bool
	Deleting bool
	// Placement explains, per node and per rule, why no node fits; nil otherwise.
	Placement *Unplaced
	// Lost tells of the node that had its disks and was removed by force, or has them
	// no more; nil otherwise. Such a VM has no node and can only be deleted.
	Lost *Lost
	// Failure is why the last operation failed; nil when it did not.
	Failure   *Failure
	Revision  gen.Revision
	CreatedAt time.Time
	UpdatedAt time.Time
}

// CD is an image of one.
type CD struct {
	// ID is nil in what is not recorded yet.
	ID   id.ID
	Name string
}

// Is tells whether a reference names it; one that is empty names none.
func (s *CD) Is(ref string) bool {
	if s == nil {
		return ref == ""
	}
	return ref == s.Name || ref == s.ID.String()
}

// Failure is why an operation on a VM failed and since when.
type Failure struct {
	Code    string
	Message string
	At      time.Time
}

// Lost is what became of a VM whose node was removed by force, or does not have it
// any more.
type Lost struct {
	Node string
	At   time.Time
	// Reason, unless its node was removed by force.
	Reason string
	// Pools are the names of storage pools that disks of it are in: these are not lost.
	Pools []string
}

// Unusable tells why nothing but deletion is left for the VM: errs.NodeRemoved;
// nil for any VM that is not lost.
func (in Intent) Unusable() error {
	if in.Lost == nil {
		return nil
	}
	return errs.New(errs.NodeRemoved, "VM %q is lost: %s", in.Name, in.Lost.why())
}

func (l Lost) why() string {
	if l.Reason != "" {
		return l.Reason + "; all that can be done is to delete it"
	}
	if len(l.Pools) > 0 {
		return "its node " + l.Node + " was removed by force; its disks in storage pool " + strings.Join(l.Pools, ", ") +
			" are kept until it is deleted, and those that were on the node are gone; no other node takes it up, and all that can be done is to delete it"
	}
	return "its node " + l.Node + " was removed by force and its disks were on it; all that can be done is to delete it"
}

// Unplaced is the scheduler's refusal, kept with the VM.
type Unplaced struct {
	Summary string
	Nodes   []UnplacedNode
	At      time.Time
}

// UnplacedNode says why one node does not fit, rule by rule.
type UnplacedNode struct {
	Node    string
	Reasons []string
}

// Observation is what an agent reported of one incarnation.
type Observation struct {
	Epoch     gen.OwnerEpoch
	NodeID    id.ID
	NodeEpoch gen.NodeEpoch
	Seq       gen.ReportSeq
	Phase     Phase
	Reason    string
	Since     time.Time
	// Addresses are what the guest said last of where others reach it.
	Addresses []netip.Addr
	// Frozen: are its file systems halted; nil for not.
	Frozen *Frozen
}

// NodeView is what Appear needs of the node.
type NodeView struct {
	ID   id.ID
	Name string
	// Reporting: is its lease good, as this server's own clock tells?
	Reporting bool
	// SeenAt is when it last reported, for display.
	SeenAt time.Time
	// Held: is it in recovery hold? Then nothing counts that was not observed since.
	Held bool
}

// JobView is what Appear needs of the job that holds a VM.
type JobView struct {
	ID   id.ID
	Kind string // "vm.start"
	// Target is the VM the job is about: this one, but for the original of a clone.
	Target id.ID
	// Cancellable: may it be cancelled now?
	Cancellable bool
	// Attention: it stopped half-way and waits for an operator.
	Attention  bool
	WaitReason string
	CreatedAt  time.Time
}

// makes tells whether the job is the one that brings the VM about.
func (j JobView) makes(v id.ID) bool {
	return j.Kind == JobCreate || (j.Kind == JobClone && j.Target == v)
}

// Volume is a disk of a VM.
type Volume struct {
	ID        id.ID
	Slot      int
	SizeBytes int64
	// ImageID is what it was made from; nil for an empty disk.
	ImageID   *id.ID
	ImageName string
	// PoolID is the storage pool that it is in; nil for its VM's node.
	PoolID   *id.ID
	PoolName string
	Limits   DiskLimits
}

// NIC is a network interface of a VM.
type NIC struct {
	ID   id.ID
	Slot int
	MAC  string
	// Bridge that it is on; empty for a user-mode network.
	Bridge   string
	Forwards []Forward
}

// Job kinds that hold a VM.
const (
	JobCreate  = "vm.create"
	JobStart   = "vm.start"
	JobStop    = "vm.stop"
	JobRestart = "vm.restart"
	JobPause   = "vm.pause"
	JobResume  = "vm.resume"
	JobDelete  = "vm.delete"
	// JobSuspend saves a VM's memory; JobStart lets it go on from there.
	JobSuspend = "vm.suspend"
	// JobMigrate moves a VM without a process to another node.
	JobMigrate = "vm.migrate"
	// JobMigrateLive moves one with its guest, which executes meanwhile.
	JobMigrateLive = "vm.migrate_live"
	// JobMigrateWarm does so too, with its disks copied ahead, in rounds.
	JobMigrateWarm = "vm.migrate_warm"
	// JobClone makes the VM it is about, and holds the one it is made from as well.
	JobClone = "vm.clone"

	// JobCapture makes an image of a disk, and changes nothing of the VM.
	JobCapture = "vm.capture"

	JobDiskAdd    = "vm.disk_add"
	JobDiskGrow   = "vm.disk_grow"
	JobDiskRemove = "vm.disk_remove"

	// JobLimit brings changed limits to the node of a VM that has a guest.
	JobLimit = "vm.limit"
	// JobCDROM changes what is in the drive of a VM that has a guest.
	JobCDROM = "vm.cdrom"
)

// JobKinds lists all kinds of jobs that hold a VM.
func JobKinds() []string {
	return []string{JobCreate, JobStart, JobStop, JobRestart, JobPause, JobResume, JobSuspend, JobMigrate, JobMigrateLive, JobMigrateWarm, JobDelete, JobClone, JobCapture, JobDiskAdd, JobDiskGrow, JobDiskRemove, JobLimit, JobCDROM}
}

// DiskBytes is the size of all disks that are on its node: what they can come to occupy
// there. What is in a storage pool is counted there.
func (v View) DiskBytes() int64 {
	var sum int64
	for _, d := range v.Volumes {
		if d.PoolID == nil {
			sum += d.SizeBytes
		}
	}
	return sum
}

// Pools are the storage pools that its disks are in, by name, each with its id.
func (v View) Pools() map[string]id.ID {
	var out map[string]id.ID
	for _, d := range v.Volumes {
		if d.PoolID == nil {
			continue
		}
		if out == nil {
			out = map[string]id.ID{}
		}
		out[d.PoolName] = *d.PoolID
	}
	return out
}

// InPools are those of its disks that are in a storage pool, each with the pool's id.
func (v View) InPools() map[id.ID]id.ID {
	var out map[id.ID]id.ID
	for _, d := range v.Volumes {
		if d.PoolID == nil {
			continue
		}
		if out == nil {
			out = map[id.ID]id.ID{}
		}
		out[d.ID] = *d.PoolID
	}
	return out
}
