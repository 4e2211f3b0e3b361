// Package recovery decides what to do when a database knows less than the nodes:
// an older one was put back from a backup, or a replica that lagged behind was
// promoted. What runs is the truth; what is done about the difference is a plan
// that a person reads and confirms.
//
// Compare is a pure function from a snapshot to that plan. A node is believed
// about VMs that the database places there, or places nowhere; what it says of any
// other VM changes nothing but its own standing.
//
// What it does not do: it starts and stops nothing. A confirmed plan writes rows.
package recovery

import (
	"time"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Snapshot is what there is to compare.
type Snapshot struct {
	// Whole: is the whole cluster held? Then jobs are from before.
	Whole bool
	// Nodes that are held. Others are none of this.
	Nodes []Node
	// VMs are all that the database has.
	VMs []vm.View
	// Jobs are those that have not ended.
	Jobs []Job
	// Images are all that the database has.
	Images []image.Image
	// MACs are all addresses that the database has given.
	MACs map[string]bool
	// Left are the VMs that an operator decided to leave alone before.
	Left map[Left]bool
	// Adopt and Leave are what the operator decides now, of VMs that the database
	// does not know.
	Adopt, Leave map[id.ID]bool
}

// Left is a VM on a node.
type Left struct{ VM, Node id.ID }

// Node is a held node and what it holds.
type Node struct {
	ID   id.ID
	Name string
	// Answered: has it told what it holds? If not, it stays held.
	Answered bool
	Epoch    gen.NodeEpoch
	Holdings []Holding
	// Volumes are all that are there, with their sizes.
	Volumes map[id.ID]int64
	// Pools are the storage pools of those that are in one.
	Pools map[id.ID]id.ID
}

// Holding is what a node holds of one VM.
type Holding struct {
	VM        id.ID
	Epoch     gen.OwnerEpoch
	Operation id.ID
	OpSeq     int64
	Attempt   int64
	PowerOn   bool
	Erased    bool
	// Machine is what it was launched as last; nil when it never was.
	Machine *Machine
	Bases   map[id.ID]image.File
	Volumes []id.ID
	// Observed is the newest observation; nil when there is none.
	Observed   *vm.Observation
	RecordedAt time.Time
}

// Machine is what a node launched.
type Machine struct {
	Name        string
	CPUs        int
	MemoryBytes int64
	// Hardware is empty where an older server did not name it.
	Hardware vm.Hardware
	Kernel   *image.File
	Initrd   *image.File
	Cmdline  string
	// CD is what its guest finds in its drive; nil for nothing.
	CD *image.File
	// Medium is what is in the drive whose medium changes at any time; nil for nothing.
	Medium *image.File
	// Seed: does its guest find what cloud-init is told?
	Seed    bool
	Volumes []id.ID
	NICs    []vm.NIC
}

// Job is one that has not ended.
type Job struct {
	ID         id.ID
	Kind       string
	TargetKind string
	Target     id.ID
	TargetName string
	OpSeq      int64
}

// alive tells whether a process of the VM was seen last.
func (h Holding) alive() bool { return h.Observed != nil && h.Observed.Phase.OnNode() }

// holds tells whether the node has anything of the VM but a fence.
func (h Holding) holds() bool {
	return h.alive() || !h.Erased && (h.PowerOn || h.Machine != nil || len(h.Bases) > 0 || len(h.Volumes) > 0)
}

// ahead tells whether the node has carried out what the database does not know.
func (h Holding) ahead(in vm.Intent) bool { return h.Epoch > in.Epoch || h.OpSeq > in.OpSeq }

// mostAhead bounds the numbers that are believed: no VM has had that many
// incarnations or jobs, and one more must always fit.
const mostAhead = 1 << 40

// believable tells whether the numbers can be true.
func (h Holding) believable() bool {
	return h.Epoch >= 0 && h.Epoch < mostAhead && h.OpSeq >= 0 && h.OpSeq < mostAhead
}
