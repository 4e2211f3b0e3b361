package flows

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// StartParams are the parameters of vm.start.
type StartParams struct {
	// ByPolicy: the VM's restart policy asked for it, and may ask again when it fails.
	ByPolicy bool `json:"by_policy,omitempty"`
}

// VMStart launches a VM, or lets a suspended one go on from its memory, on the node that has its disks, under a new owner
// epoch. While that node does not report, it waits and says so. It unwinds to a
// stopped VM with the reason kept: process and reservation are gone, the raised
// epoch stays, since a late command under it must not work either. The wish that it
// runs is taken back too, unless its restart policy is what asked for it. A suspended
// VM stays so.
func VMStart() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobStart,
		Steps: []workflow.Step[Env]{
			{Name: "admit", Do: admitOnceReported, Undo: unadmitStart, InDatabase: true, Cancellable: true},
			{Name: "launch", Do: launch, Undo: unlaunch},
		},
		Finish: free, FinishAll: freeAll,
	}
}

// StopParams are the parameters of vm.stop and vm.restart.
type StopParams struct {
	// GraceMS is how long the guest may take to shut down; 0 powers it off at once.
	GraceMS int64 `json:"grace_ms"`
}

// VMStop asks the guest to shut down, powers it off when the grace period is
// over, and gives back CPU and memory. While its node does not report, it waits
// and says so, and may be cancelled. What was asked of a guest cannot be taken
// back: unwinding restores the wish that it runs, and what the guest did
// meanwhile is shown as it is.
func VMStop() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobStop,
		Steps: []workflow.Step[Env]{
			{Name: "intend", Do: intendOff, Undo: intendOn, InDatabase: true, Cancellable: true},
			{Name: "shut down", Do: shutDown},
			{Name: "power off", Do: powerOffDo},
			{Name: "release", Do: releaseDo, InDatabase: true},
		},
		Finish: free, FinishAll: freeAll,
	}
}

// VMRestart stops and launches a VM under a new owner epoch. A launch that fails
// leaves it stopped, with the reason.
func VMRestart() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobRestart,
		Steps: []workflow.Step[Env]{
			// what was asked of a guest cannot be taken back: no undo
			{Name: "shut down", Do: shutDown},
			{Name: "power off", Do: powerOffDo},
			{Name: "admit", Do: admit, Undo: unadmit, InDatabase: true},
			{Name: "launch", Do: launch, Undo: powerOffUndo},
		},
		Finish: free, FinishAll: freeAll,
	}
}

// VMPause halts a VM's vCPUs. It unwinds to whatever the guest does.
func VMPause() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobPause,
		Steps: []workflow.Step[Env]{{Name: "pause", Do: func(ctx context.Context, r *run) (any, error) {
			v, err := usable(ctx, r)
			if err != nil {
				return nil, err
			}
			return observe(ctx, r, v, &nodelink.Pause{Header: head(r, v, v.Intent.Epoch, stepTimeout)})
		}}},
		Finish: free, FinishAll: freeAll,
	}
}

// VMResume continues a VM's vCPUs.
func VMResume() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobResume,
		Steps: []workflow.Step[Env]{{Name: "resume", Do: func(ctx context.Context, r *run) (any, error) {
			v, err := usable(ctx, r)
			if err != nil {
				return nil, err
			}
			return observe(ctx, r, v, &nodelink.Resume{Header: head(r, v, v.Intent.Epoch, stepTimeout)})
		}}},
		Finish: free, FinishAll: freeAll,
	}
}

// admitOnceReported waits for the VM's node first: nothing that nobody can tell
// the outcome of is begun on a node that is away. In the transaction that accepts the
// job, it takes the VM for it too (see control.Service.beginStart).
func admitOnceReported(ctx context.Context, r *run) (any, error) {
	var hold *id.ID
	if r.Accepting() != nil {
		hold = &r.Job.ID // nothing has changed the VM yet: one change of it is enough
	}
	return admitIf(ctx, r, hold, func(v vm.View) error {
		if away(r, v) {
			return awaitNode(v, "the VM is started")
		}
		return nil
	})
}

// admit decides the new incarnation and counts its CPU and memory on the node,
// before any command goes out. Run twice, it decides twice: a number nobody used is
// no loss, one used twice would be.
func admit(ctx context.Context, r *run) (any, error) {
	return admitIf(ctx, r, nil, func(vm.View) error { return nil })
}

func admitIf(ctx context.Context, r *run, hold *id.ID, ok func(vm.View) error) (any, error) {
	var out raised
	var v vm.View
	err := write(ctx, r, func(tx *store.Tx) (err error) {
		v, err = loadIn(ctx, r, tx)
		if err == nil {
			err = v.Intent.Unusable()
		}
		if err == nil {
			err = ok(v)
		}
		if err == nil {
			out.Resumed = suspended(v)
			v.Intent, err = tx.VMAdmit(ctx, v, hold)
		}
		return err
	})
	if err == nil {
		out.Epoch = v.Intent.Epoch
		r.Keep(v)
	}
	return out, err
}

// raised is the output of a step that decides an incarnation.
type raised struct {
	Epoch gen.OwnerEpoch `json:"epoch"`
	// Resumed: does it go on from a saved memory?
	Resumed bool `json:"resumed,omitempty"`
}

// unadmit takes back the reservation, and the wish unless it was there before, not
// the epoch.
func unadmit(ctx context.Context, r *run) error {
	var p StartParams
	if err := r.Params(&p); err != nil {
		return err
	}
	return write(ctx, r, func(tx *store.Tx) error {
		v, err := tx.VMByID(ctx, r.Job.Target.ID)
		if err == nil {
			err = tx.VMUnreserve(ctx, v)
		}
		if err != nil || p.ByPolicy {
			return err
		}
		return tx.VMSetPower(ctx, r.Job.Target.ID, false)
	})
}

func unreserve(ctx context.Context, r *run) error {
	return write(ctx, r, func(tx *store.Tx) error {
		v, err := tx.VMByID(ctx, r.Job.Target.ID)
		if err != nil {
			return err
		}
		return tx.VMUnreserve(ctx, v)
	})
}

func releaseDo(ctx context.Context, r *run) (any, error) { return nil, unreserve(ctx, r) }

// lowerPower takes back the wish, not the epoch.
func lowerPower(ctx context.Context, r *run) error { return setPower(ctx, r, false) }

// intendOff records the wish at once, and goes on once the node can be asked.
func intendOff(ctx context.Context, r *run) (any, error) {
	if err := setPower(ctx, r, false); err != nil {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err == nil && away(r, v) {
		err = awaitNode(v, "the VM is stopped")
	}
	return nil, err
}

func intendOn(ctx context.Context, r *run) error { return setPower(ctx, r, true) }

func setPower(ctx context.Context, r *run, on bool) error {
	return write(ctx, r, func(tx *store.Tx) error { return tx.VMSetPower(ctx, r.Job.Target.ID, on) })
}

func launch(ctx context.Context, r *run) (any, error) {
	v, err := admitted(ctx, r)
	if err != nil {
		return nil, err
	}
	img, err := imageOf(ctx, r, v)
	if err != nil {
		return nil, err
	}
	if err := writeSeed(ctx, r, v); err != nil {
		return nil, err
	}
	cmd := &nodelink.Launch{
		Header:  head(r, v, v.Intent.Epoch, launchTimeout),
		Machine: machine(v, img),
	}
	// as was decided: what an attempt that was broken off left of the process is seen by now
	if cmd.Resume, err = resumes(r); err != nil {
		return nil, err
	}
	if cmd.Machine.CD, err = cdFile(ctx, r, v.Intent.SeedImage); err != nil {
		return nil, err
	}
	if cmd.Machine.Medium, err = cdFile(ctx, r, v.Intent.CDROM); err != nil {
		return nil, err
	}
	rep, err := observe(ctx, r, v, cmd)
	if !errs.Is(err, errs.ImageMismatch) && !errs.Is(err, errs.NotFound) {
		return rep, err
	}
	// a file of the image that the VM stands on is damaged on its node, or gone: a
	// good copy takes its place. Each is a command of its own, with its own answer.
	if err := fetch(ctx, r, v, imagesOf(v), r.Step+": fetch image"); err != nil {
		return nil, err
	}
	cmd.Step = r.Step + ": again"
	return observe(ctx, r, v, cmd)
}

// admitted is the VM as the step before has left it: nothing that a launch needs
// changes while the job holds it.
func admitted(ctx context.Context, r *run) (vm.View, error) {
	if v, ok := r.Kept().(vm.View); ok {
		return v, nil
	}
	return usable(ctx, r)
}

// launchTimeout is generous: a host under load takes its time to start QEMU.
const launchTimeout = time.Minute

// shutDown asks the guest and waits; whether it obeyed, "power off" finds out.
func shutDown(ctx context.Context, r *run) (any, error) {
	var p StopParams
	if err := r.Params(&p); err != nil || p.GraceMS <= 0 {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err != nil || v.Intent.Epoch == 0 {
		return nil, err
	}
	grace := time.Duration(p.GraceMS) * time.Millisecond
	return observe(ctx, r, v, &nodelink.Shutdown{Header: head(r, v, v.Intent.Epoch, grace+stepTimeout), GraceMS: p.GraceMS})
}

// powerOffDo powers off a VM that is to stay.
func powerOffDo(ctx context.Context, r *run) (any, error) {
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return endProcess(ctx, r, v, true)
}

// powerOff is for a VM that goes, or whose start is taken back: on a node that
// was removed by force nothing is left to end.
func powerOff(ctx context.Context, r *run) (any, error) {
	v, err := load(ctx, r)
	if err != nil {
		return nil, err
	}
	return endProcess(ctx, r, v, false)
}

// endProcess ends the process, if there is one, and reports that there is none. With
// discard, a memory that is saved is given up.
func endProcess(ctx context.Context, r *run, v vm.View, discard bool) (any, error) {
	if v.Intent.NodeID == nil || v.Intent.Epoch == 0 {
		return nil, nil
	}
	rep, err := observe(ctx, r, v, &nodelink.PowerOff{Header: head(r, v, v.Intent.Epoch, stepTimeout), Discard: discard})
	if err == nil && rep.Phase.OnNode() {
		// nothing that follows may take the process for gone
		err = errs.New(errs.Timeout, "the node reports VM %q as %s after it was powered off", v.Intent.Name, rep.Phase)
	}
	return rep, err
}

func powerOffUndo(ctx context.Context, r *run) error {
	_, err := powerOff(ctx, r)
	return err
}
