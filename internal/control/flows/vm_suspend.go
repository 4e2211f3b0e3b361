package flows

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// VMSuspend saves a VM's memory on its node's disk, ends its process, and gives back
// CPU and memory. While its node does not report, it waits and says so. It may be
// cancelled until the memory is written. It unwinds to whatever its node has made of
// it: one that runs, or one that is suspended, never one without either; the wish and
// what is counted follow that.
func VMSuspend() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobSuspend,
		Steps: []workflow.Step[Env]{
			{Name: "intend", Do: intendSuspended, Undo: asItIs, InDatabase: true, Cancellable: true},
			// its undo waits until nothing acts on the guest any more, and sees what it is
			{Name: "suspend", Do: suspend, Undo: seeAsIs, Cancellable: true},
			{Name: "release", Do: releaseDo, InDatabase: true},
		},
		Finish: free, FinishAll: freeAll,
	}
}

// intendSuspended records the wish at once, and goes on once the node can be asked.
func intendSuspended(ctx context.Context, r *run) (any, error) {
	if err := setPower(ctx, r, false); err != nil {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err == nil && away(r, v) {
		err = awaitNode(v, "the VM is suspended")
	}
	return nil, err
}

// asItIs brings the wish, and what is counted, to what the VM was last seen as.
func asItIs(ctx context.Context, r *run) error {
	return write(ctx, r, func(tx *store.Tx) error {
		v, err := tx.VMByID(ctx, r.Job.Target.ID)
		if err != nil {
			return err
		}
		if suspended(v) {
			return tx.VMUnreserve(ctx, v)
		}
		return tx.VMSetPower(ctx, v.Intent.ID, true)
	})
}

// suspended tells whether the VM's newest incarnation is one whose memory is saved.
func suspended(v vm.View) bool { return v.Observed != nil && v.Observed.Phase == vm.PhaseSuspended }

// saveRate is how fast the slowest disk that serves a VM at all writes memory.
const saveRate = 20 * unit.MiB

func suspend(ctx context.Context, r *run) (any, error) {
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return observe(ctx, r, v, &nodelink.Suspend{Header: head(r, v, v.Intent.Epoch, saveTime(v))})
}

// saveTime bounds the saving of a VM's memory.
func saveTime(v vm.View) time.Duration {
	return launchTimeout + time.Duration(v.Intent.MemoryBytes/saveRate)*time.Second
}

func seeAsIs(ctx context.Context, r *run) error {
	v, err := load(ctx, r)
	if err != nil || v.Intent.NodeID == nil || v.Intent.Epoch == 0 {
		return err
	}
	_, err = observe(ctx, r, v, &nodelink.Look{Header: head(r, v, v.Intent.Epoch, launchTimeout)})
	return err
}

// resumes tells whether a start lets a VM go on from its saved memory.
func resumes(r *run) (bool, error) {
	out, ok, err := workflow.Output[raised](r, "admit")
	return ok && out.Resumed, err
}

// unlaunch takes a start back. What went on from its memory has used that up: to end
// it would leave it without either, so that it goes on. What did not is suspended.
func unlaunch(ctx context.Context, r *run) error {
	resumed, err := resumes(r)
	switch {
	case err != nil:
		return err
	case resumed:
		return seeAsIs(ctx, r)
	}
	return powerOffUndo(ctx, r)
}

// unadmitStart is unadmit, unless what was resumed goes on.
func unadmitStart(ctx context.Context, r *run) error {
	resumed, err := resumes(r)
	if err != nil {
		return err
	}
	if !resumed {
		return unadmit(ctx, r)
	}
	v, err := load(ctx, r)
	if err != nil || (v.Observed != nil && v.Observed.Epoch >= v.Intent.Epoch && v.Observed.Phase.OnNode()) {
		return err
	}
	return unadmit(ctx, r)
}
