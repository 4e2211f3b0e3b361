package recovery

import (
	"time"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Case is how a VM differs.
type Case string

// The cases.
const (
	// Changed: both know it, and its node knows more.
	Changed Case = "changed"
	// Unknown: its node has it, the database does not.
	Unknown Case = "unknown"
	// Missing: the database has it, its node does not.
	Missing Case = "missing"
	// Elsewhere: a node has it that is not the one the database places it on.
	Elsewhere Case = "elsewhere"
)

// Action is what a confirmed plan does.
type Action string

// The actions.
const (
	// Adopt: the database takes up what the node has.
	Adopt Action = "adopt"
	// Lose: the VM becomes failed, and can be deleted.
	Lose Action = "lose"
	// Leave: nothing is done; it stays listed.
	Leave Action = "leave"
	// GoOn: the job goes on.
	GoOn Action = "go_on"
	// End: the job is ended, as cancelled.
	End Action = "end"
)

// Plan is what differs and what is done about it.
type Plan struct {
	// ID changes with whatever a person decides on.
	ID    string
	Nodes []NodePlan
	VMs   []VMPlan
	Jobs  []JobPlan
	// Images are made anew for VMs that stand on files which no image has any more.
	Images []image.Image
}

// NodePlan is what becomes of a held node.
type NodePlan struct {
	ID   id.ID
	Name string
	// Release: it has told what it holds, and is held no more.
	Release bool
}

// VMPlan is what becomes of one VM.
type VMPlan struct {
	Case Case
	VM   id.ID
	Name string
	Node id.ID
	// NodeName is that of the node that has it, or should.
	NodeName string
	// State is what its node says of it, if anything.
	State vm.Phase
	// Since is when the node last wrote down anything of it, for display.
	Since time.Time
	// Differences are for people.
	Differences []string
	Action      Action
	// Why it is left although nobody asked for that; empty otherwise.
	Why string
	// Adoption is what is written when it is adopted.
	Adoption *Adoption
	// Fence is the node's, for a VM that is lost.
	Fence Fence
}

// Fence is the highest a node has seen of a VM.
type Fence struct {
	Epoch gen.OwnerEpoch
	OpSeq int64
}

// Adoption is a VM as its node has it.
type Adoption struct {
	Name        string
	CPUs        int
	MemoryBytes int64
	// Hardware is empty where it is not known.
	Hardware vm.Hardware
	PowerOn  bool
	Fence    Fence
	// ImageID is what it was made from; nil when that is not known.
	ImageID *id.ID
	// SeedImageID is of the CD in its drive; nil for none.
	SeedImageID *id.ID
	// CDROMID is of the CD in the drive whose medium changes; nil for none.
	CDROMID *id.ID
	// Volumes in slot order: of a VM that the database knows, those that it lacks.
	Volumes []vm.Volume
	// Resized are volumes of another size than the database says, Gone those that
	// are there no more.
	Resized  []vm.Volume
	Gone     []vm.Volume
	NICs     []vm.NIC
	Observed *vm.Observation
}

// JobPlan is what becomes of a job that had not ended.
type JobPlan struct {
	Job
	Action Action
	Why    string
	// Attempt is the highest its node has seen of it.
	Attempt int64
}

// Differs tells whether there is anything that a person should read.
func (p Plan) Differs() bool { return len(p.VMs) > 0 || len(p.Jobs) > 0 }
