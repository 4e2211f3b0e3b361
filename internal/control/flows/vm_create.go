package flows

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// CreateParams are the parameters of vm.create.
type CreateParams struct {
	// Start the VM once its disks are there?
	Start bool `json:"start"`
	// Node restricts placement; empty for any.
	Node string `json:"node,omitempty"`
}

// placeAgain is how long a VM that fits nowhere waits for the next look, unless
// a node joins or is uncordoned before.
const placeAgain = 5 * time.Second

// fetchTimeout bounds the transfer of an image to a node.
const fetchTimeout = 30 * time.Minute

// VMCreate makes a VM whose intent was recorded, held by this job, when it was
// accepted: choose a node, bring the image there, make the disks, and launch it
// if asked. While no node fits, it waits and says why, per node.
//
// It unwinds to nothing: process, disks, reservation and the VM's row are gone;
// what stays is the image in the node's cache and this job's record.
func VMCreate() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobCreate,
		Steps: []workflow.Step[Env]{
			{Name: "place", Do: place, Undo: unplace, InDatabase: true, Cancellable: true},
			{Name: "fetch image", Do: fetchImage, Cancellable: true},
			// the disks' undo removes all the node holds of the VM, the record included
			{Name: "make disks", Do: makeDisks, Undo: erase, Cancellable: true},
			// the epoch rises before the command goes out and never falls again
			{Name: "raise epoch", Do: ifStart(admit), Undo: lowerPower, InDatabase: true},
			{Name: "launch", Do: ifStart(launch), Undo: powerOffUndo},
		},
		Finish: finishCreate,
	}
}

func ifStart(do func(context.Context, *run) (any, error)) func(context.Context, *run) (any, error) {
	return func(ctx context.Context, r *run) (any, error) {
		var p CreateParams
		if err := r.Params(&p); err != nil || !p.Start {
			return nil, err
		}
		return do(ctx, r)
	}
}

// placed is the output of "place".
type placed struct {
	Node id.ID `json:"node"`
}

// place chooses among the nodes as they are now and commits the choice under the
// node's own counters; a node that filled up meanwhile is passed over.
func place(ctx context.Context, r *run) (any, error) {
	var p CreateParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	if v.Intent.NodeID != nil {
		return placed{*v.Intent.NodeID}, nil // done before a crash
	}
	nodes, err := snapshot(ctx, r)
	if err != nil {
		return nil, err
	}
	plan, rejected, ok := scheduler.Place(nodes, scheduler.Request{
		CPUs: v.Intent.CPUs, MemoryBytes: v.Intent.MemoryBytes, DiskBytes: v.DiskBytes(), NodeName: p.Node, Limits: v.Limited(), Bridges: v.Bridges(), Pools: v.Pools(),
		Hardware:  v.Intent.Hardware,
		Simulated: kindOf(nodes, p.Node),
	})
	if !ok && r.Accepting() != nil {
		return nil, errLater
	}
	if !ok {
		if err := stillThere(ctx, r, p.Node); err != nil {
			return nil, err
		}
		return nil, explain(ctx, r, v, rejected)
	}
	return take(ctx, r, v, plan.Ranked)
}

// take puts the VM on the first node that still has room for it.
func take(ctx context.Context, r *run, v vm.View, ranked []scheduler.Ranked) (any, error) {
	for _, c := range ranked {
		var ok bool
		err := write(ctx, r, func(tx *store.Tx) (err error) {
			ok, err = tx.VMPlace(ctx, v, c.Node)
			return err
		})
		if err != nil {
			return nil, err
		}
		if ok {
			r.Env.Candidates.Took(c.Node, node.Resources{CPUs: v.Intent.CPUs, MemoryBytes: v.Intent.MemoryBytes, DiskBytes: v.DiskBytes()})
			return placed{c.Node}, nil
		}
	}
	return nil, workflow.Wait("every node that fitted was taken meanwhile", placeAgain/10)
}

// errLater leaves a choice to the step's turn after the request was accepted.
var errLater = workflow.Wait("it is decided in a moment", 0)

// snapshot reads the nodes; while the job is accepted, only what was read already:
// there is one connection, and others may wait for it.
func snapshot(ctx context.Context, r *run) ([]node.Node, error) {
	if r.Accepting() == nil {
		return r.Env.Candidates.Snapshot(ctx)
	}
	if nodes, ok := r.Env.Candidates.Recent(); ok {
		return nodes, nil
	}
	return nil, errLater
}

// stillThere tells whether the node that a VM is to be on was removed since the
// request was accepted: nothing else would ever fit.
func stillThere(ctx context.Context, r *run, name string) error {
	if name == "" {
		return nil
	}
	_, err := r.Env.Store.NodeGet(ctx, name)
	if errs.Is(err, errs.NotFound) {
		return errs.New(errs.NodeRemoved, "node %s, which the VM was to be placed on, was removed", name)
	}
	return err
}

// kindOf keeps VMs that nobody sent to a simulated node on real ones, as soon as
// there is a real one: a simulated guest executes nothing.
func kindOf(nodes []node.Node, asked string) *bool {
	if asked != "" {
		return nil
	}
	for _, n := range nodes {
		if !n.Simulated && n.State != node.Removed {
			simulated := false
			return &simulated
		}
	}
	return nil
}

// explain keeps the reasons with the VM and parks the job.
func explain(ctx context.Context, r *run, v vm.View, rejected []scheduler.Rejected) error {
	why := vm.Unplaced{Summary: scheduler.Explain(rejected)}
	for _, n := range rejected {
		why.Nodes = append(why.Nodes, vm.UnplacedNode{Node: n.Name, Reasons: n.Reasons})
	}
	err := write(ctx, r, func(tx *store.Tx) error {
		if old := v.Intent.Placement; old != nil && old.Summary == why.Summary {
			return nil
		}
		if err := tx.VMExplain(ctx, v.Intent.ID, why); err != nil {
			return err
		}
		return tx.VMChanged(ctx, v.Intent, &r.Job.ID)
	})
	if err != nil {
		return err
	}
	return workflow.Wait(why.Summary, placeAgain)
}

func unplace(ctx context.Context, r *run) error {
	return write(ctx, r, func(tx *store.Tx) error {
		v, err := tx.VMByID(ctx, r.Job.Target.ID)
		if err != nil {
			return err
		}
		return tx.VMUnplace(ctx, v)
	})
}

func makeDisks(ctx context.Context, r *run) (any, error) {
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	cmd := &nodelink.CreateVolumes{Header: head(r, v, v.Intent.Epoch, makeTime(v.Volumes...))}
	for _, d := range v.Volumes {
		spec, err := volumeSpec(ctx, r, d)
		if err != nil {
			return nil, err
		}
		cmd.Volumes = append(cmd.Volumes, spec)
	}
	if err := call(ctx, r, v, cmd, nil); err != nil {
		return nil, err
	}
	return nil, writeSeed(ctx, r, v)
}

// makeTime bounds the making of disks: one that is in a storage pool and made from an image
// is written whole.
func makeTime(disks ...vm.Volume) time.Duration {
	for _, d := range disks {
		if d.PoolID != nil && d.ImageID != nil {
			return fetchTimeout
		}
	}
	return stepTimeout
}

// writeSeed makes the seed of a VM that has one, by a command of its own of the
// step. It is repeated before each launch: what is already so is left alone, and
// what changed since the last one arrives.
func writeSeed(ctx context.Context, r *run, v vm.View) error {
	files, err := v.Intent.Seed()
	if err != nil || len(files) == 0 {
		return err
	}
	cmd := &nodelink.WriteSeed{Header: head(r, v, v.Intent.Epoch, stepTimeout)}
	cmd.Step = r.Step + ": seed"
	for _, f := range files {
		cmd.Files = append(cmd.Files, nodelink.SeedFile(f))
	}
	return call(ctx, r, v, cmd, nil)
}

// volumeSpec is what a node needs to make a disk.
func volumeSpec(ctx context.Context, r *run, d vm.Volume) (nodelink.VolumeSpec, error) {
	spec := nodelink.VolumeSpec{ID: d.ID, SizeBytes: d.SizeBytes}
	if d.ImageID == nil {
		return spec, nil
	}
	img, err := r.Env.Store.ImageByID(ctx, *d.ImageID)
	if err != nil {
		return spec, err
	}
	if spec.Base = part(img, image.RoleDisk); spec.Base == nil {
		return spec, errs.New(errs.Conflict, "image %q has no disk to make a volume from", img.Name)
	}
	return spec, nil
}

// erase removes what the node holds of the VM. A VM that got no node has nothing.
func erase(ctx context.Context, r *run) error {
	v, err := load(ctx, r)
	if err == nil && v.Intent.Lost != nil {
		return eraseShared(ctx, r, v)
	}
	if err != nil || v.Intent.NodeID == nil {
		return err
	}
	cmd := &nodelink.Erase{Header: head(r, v, v.Intent.Epoch, stepTimeout)}
	for _, d := range v.Volumes {
		cmd.Volumes = append(cmd.Volumes, d.ID)
	}
	return call(ctx, r, v, cmd, nil)
}

func finishCreate(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	t := store.On(tx)
	v, err := t.VMByID(ctx, r.Job.Target.ID)
	if err != nil {
		return err
	}
	if !out.Succeeded() {
		return t.VMDelete(ctx, v, &r.Job.ID)
	}
	if !v.Intent.PowerOn {
		if err := t.VMUnreserve(ctx, v); err != nil {
			return err
		}
	}
	return t.VMFree(ctx, v.Intent.ID, r.Job.ID, nil)
}
