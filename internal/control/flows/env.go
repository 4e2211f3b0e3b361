package flows

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/remote"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Env is what steps may use.
type Env struct {
	Store *store.Store
	Nodes Nodes
	// Candidates are the nodes as placement sees them.
	Candidates *Candidates
	Files      Files
	// Content is the folder of images on this server.
	Content *blob.Dir
	// Fetch reads files from elsewhere.
	Fetch  *remote.Client
	Images *Images
	// Cluster is the incarnation every command carries.
	Cluster id.ID
	// Holds tells what is in recovery hold; nil when nothing ever is.
	Holds Holds
	// Drain begins the jobs of VMs that a drain of a node is made of.
	Drain Drain
}

// Holds refuses, with errs.RecoveryHold, what is held.
type Holds interface {
	// Any refuses while anything is held.
	Any() error
	// On refuses what is on a node, or on none, while that is held.
	On(node *id.ID) error
}

// Nodes sends commands.
type Nodes interface {
	// Call sends a command to a node and reads its reply; it fills in the node's
	// epoch in the header of a fenced command. errs.NodeUnreachable when the node
	// has no session here.
	Call(ctx context.Context, node id.ID, cmd nodelink.Command, reply any) error
}

// Files is the content of images on this server.
type Files interface {
	// Ticket lets one bulk stream read a file, once, for a while.
	Ticket(sha256 string) (string, error)
	// Remove deletes a file; an absent one is no error.
	Remove(sha256 string) error
	// Read has ask send a command with a ticket, and gives the bulk stream that the node
	// opens with it.
	Read(ctx context.Context, ask func(ticket string) error) (io.ReadCloser, error)
}

// run is a step of a flow about VMs.
type run = workflow.Run[Env]

// stepTimeout bounds a command that should take milliseconds; a node that takes
// longer is asked again under the next attempt.
const stepTimeout = 30 * time.Second

// load reads the VM a job is about. What the transaction that accepts the job has
// read under its lock is as good.
func load(ctx context.Context, r *run) (vm.View, error) {
	if v, ok := r.Seen().(vm.View); ok {
		return v, nil
	}
	if tx := r.Accepting(); tx != nil {
		return store.On(tx).VMByID(ctx, r.Job.Target.ID)
	}
	return r.Env.Store.VMByID(ctx, r.Job.Target.ID)
}

// loadIn is load within a transaction of the step.
func loadIn(ctx context.Context, r *run, tx *store.Tx) (vm.View, error) {
	if v, ok := r.Seen().(vm.View); ok {
		return v, nil
	}
	return tx.VMByID(ctx, r.Job.Target.ID)
}

// usable reads the VM for a step that needs its node. errs.NodeRemoved when that
// was removed by force: the job then ends, since nothing brings the node back.
func usable(ctx context.Context, r *run) (vm.View, error) {
	v, err := load(ctx, r)
	if err == nil {
		err = v.Intent.Unusable()
	}
	return v, err
}

// head makes the header of a command of this step.
func head(r *run, v vm.View, epoch gen.OwnerEpoch, budget time.Duration) nodelink.Header {
	return nodelink.Header{
		Cluster: r.Env.Cluster, VM: v.Intent.ID, OwnerEpoch: epoch,
		Operation: r.Job.ID, OpSeq: r.Job.OpSeq, Step: r.Step, Attempt: r.Attempt,
		BudgetMS: budget.Milliseconds(), Pools: v.InPools(),
	}
}

// call sends a command about a VM to its node, waiting a little longer than the
// node may take.
func call(ctx context.Context, r *run, v vm.View, cmd nodelink.Fenced, reply any) error {
	if err := v.Intent.Unusable(); err != nil {
		return err
	}
	if v.Intent.NodeID == nil {
		return errs.New(errs.Internal, "VM %q has no node to send %s to", v.Intent.Name, cmd.Method())
	}
	budget := time.Duration(cmd.Head().BudgetMS) * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, budget+stepTimeout/2)
	defer cancel()
	err := r.Env.Nodes.Call(ctx, *v.Intent.NodeID, cmd, reply)
	if code := errs.CodeOf(err); (code == errs.NodeUnreachable || code == errs.NoSpace) && v.Node != nil {
		err = errs.New(code, "node %s: %s", v.Node.Name, errs.As(err).Message).Because(err)
	}
	return err
}

// observe sends a command whose reply is an observation, and records that as the
// agent's report.
func observe(ctx context.Context, r *run, v vm.View, cmd nodelink.Fenced) (nodelink.Report, error) {
	var rep nodelink.Report
	if err := call(ctx, r, v, cmd, &rep); err != nil {
		return rep, err
	}
	rep.Reason = nodelink.Text(rep.Reason)
	result, err := r.Env.Store.ReportApply(ctx, *v.Intent.NodeID, cmd.Head().NodeEpoch, rep)
	if err == nil && result == nodelink.NotPlaced {
		_, err = usable(ctx, r) // the node was removed while the command was under way
	}
	return rep, err
}

// write runs store writes under the job's claim.
func write(ctx context.Context, r *run, fn func(*store.Tx) error) error {
	return r.InTx(ctx, func(tx pgx.Tx) error { return fn(store.On(tx)) })
}

// free is the Finish of flows that leave the VM in place: it ends the hold, and
// a failure stays with the VM until the next success.
func free(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	failure := out.Err
	if out.Succeeded() {
		failure = nil
	}
	return store.On(tx).VMFree(ctx, r.Job.Target.ID, r.Job.ID, failure)
}

// freeAll is free for jobs that have succeeded.
func freeAll(ctx context.Context, tx pgx.Tx, runs []*run) error {
	var vms, jobs []id.ID
	for _, r := range runs {
		vms, jobs = append(vms, r.Job.Target.ID), append(jobs, r.Job.ID)
	}
	return store.On(tx).VMFreeAll(ctx, vms, jobs)
}

// machine is what the node needs to launch the VM.
func machine(v vm.View, img *image.Image) nodelink.Machine {
	m := nodelink.Machine{
		Name: v.Intent.Name, CPUs: v.Intent.CPUs, MemoryBytes: v.Intent.MemoryBytes, Seed: v.Intent.CloudInit != nil,
		Limits: limitsOf(v),
		Type:   v.Intent.Hardware.Type, CPU: v.Intent.Hardware.CPU, Firmware: v.Intent.Hardware.Firmware,
	}
	if img != nil && img.Kind == image.Kernel {
		m.Kernel, m.Initrd, m.Cmdline = part(*img, image.RoleKernel), part(*img, image.RoleInitrd), img.Cmdline
	}
	for _, d := range v.Volumes {
		m.Volumes = append(m.Volumes, d.ID)
	}
	for _, n := range v.NICs {
		c := nodelink.NIC{ID: n.ID, MAC: n.MAC, Bridge: n.Bridge}
		for _, f := range n.Forwards {
			c.Forwards = append(c.Forwards, nodelink.Forward(f))
		}
		m.NICs = append(m.NICs, c)
	}
	return m
}

func part(i image.Image, r image.Role) *nodelink.ImageFile {
	f, ok := i.File(r)
	if !ok {
		return nil
	}
	w := wireFile(f)
	return &w
}

func wireFile(f image.File) nodelink.ImageFile {
	return nodelink.ImageFile{SHA256: f.SHA256, SizeBytes: f.SizeBytes, Format: f.Format, VirtualBytes: f.VirtualBytes}
}

// cdFile is the file of a CD; nil for none.
func cdFile(ctx context.Context, r *run, cd *vm.CD) (*nodelink.ImageFile, error) {
	if cd == nil {
		return nil, nil
	}
	i, err := r.Env.Store.ImageByID(ctx, cd.ID)
	if err != nil {
		return nil, err
	}
	return part(i, image.RoleISO), nil
}

// imageOf reads the VM's image; nil when it has none.
func imageOf(ctx context.Context, r *run, v vm.View) (*image.Image, error) {
	if v.Intent.ImageID == nil {
		return nil, nil
	}
	i, err := r.Env.Images.get(ctx, r.Env.Store, *v.Intent.ImageID)
	return &i, err
}

// Images remembers images that VMs are made of: such an image is not changed, nor
// removed while a VM has it. A nil one remembers nothing.
type Images struct {
	mu   sync.Mutex
	byID map[id.ID]image.Image
}

// imagesKept bounds what is remembered.
const imagesKept = 1024

func (c *Images) get(ctx context.Context, s *store.Store, i id.ID) (image.Image, error) {
	if c == nil {
		return s.ImageByID(ctx, i)
	}
	c.mu.Lock()
	img, ok := c.byID[i]
	c.mu.Unlock()
	if ok {
		return img, nil
	}
	img, err := s.ImageByID(ctx, i)
	if err != nil {
		return img, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil || len(c.byID) >= imagesKept {
		c.byID = map[id.ID]image.Image{}
	}
	c.byID[i] = img
	return img, nil
}
