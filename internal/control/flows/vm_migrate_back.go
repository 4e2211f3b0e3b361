package flows

import (
	"context"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// takeBack makes the row agree with the nodes where it says that a VM is the target's, and
// that has given it up: the swap was committed, and the answer never came there. The VM
// went on at its source, under the epoch it had. It is the source's again under a new one,
// as every change of owner is, and so is its incarnation: its memory is saved, and it goes
// on from that. Each part may have been done before a crash.
func takeBack(ctx context.Context, r *run, m moving, paused bool) error {
	if isOn(m.v, m.Target) {
		if err := saveAside(ctx, r, m); err != nil {
			return err
		}
		err := write(ctx, r, func(tx *store.Tx) error {
			_, err := tx.VMSwap(ctx, m.v, m.back(r.Job.ID))
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := seeAsIs(ctx, r); err != nil {
		return err
	}
	return goOnBack(ctx, r, paused || m.Paused)
}

// regain returns a VM to its source that was its target's and lost with it: that node was
// removed by force, and whoever did so has said that its host is off for good. The source has
// all that there was at the swap. What the guest did since, if it executed, is lost; so its
// memory is given up, and nobody goes on from a moment that may be long past. Where the target
// had given it up, the source's guest has never stood still for it, and goes on.
func regain(ctx context.Context, r *run, m moving) error {
	if m.source.State == node.Removed {
		return nil // lost with both
	}
	heard, err := tellSource(ctx, r, m, m.Epoch, nodelink.Undecided)
	if err == nil && heard.Verdict == nodelink.Undecided {
		heard, err = tellSource(ctx, r, m, m.Epoch, nodelink.Disowned)
	}
	if err == nil && heard.Verdict == nodelink.Abandoned {
		err = saveAside(ctx, r, m)
	}
	if err != nil {
		return err
	}
	err = write(ctx, r, func(tx *store.Tx) error {
		_, err := tx.VMRegain(ctx, m.v, m.back(r.Job.ID))
		return err
	})
	if err == nil {
		err = seeAsIs(ctx, r)
	}
	if err != nil {
		return err
	}
	return goOnBack(ctx, r, heard.Paused || m.Paused)
}

// back is the swap that returns a VM to its source.
func (m moving) back(migration id.ID) store.Swap {
	return store.Swap{Migration: migration, From: m.Target, To: m.Source, Epoch: m.v.Intent.Epoch, Back: true}
}

// lostThere tells whether a VM was lost with the node that it was moving to.
func (m moving) lostThere() bool { return m.v.Intent.Lost != nil && m.target.State == node.Removed }

// goOnBack lets a VM go on from the memory that was saved aside.
func goOnBack(ctx context.Context, r *run, paused bool) error {
	v, err := load(ctx, r)
	if err != nil {
		return err
	}
	if suspended(v) {
		if err := goOnSaved(ctx, r, v); err != nil {
			return err
		}
	}
	if v, err = load(ctx, r); err != nil || !paused || !executes(v) {
		return err
	}
	_, err = observe(ctx, r, v, &nodelink.Pause{Header: head(r, v, v.Intent.Epoch, stepTimeout)})
	return err
}

func executes(v vm.View) bool { return v.Observed != nil && v.Observed.Phase == vm.PhaseRunning }

func goOnSaved(ctx context.Context, r *run, v vm.View) (err error) {
	cmd := &nodelink.Launch{Header: head(r, v, v.Intent.Epoch, launchTimeout), Resume: true}
	cmd.Step = r.Step + ": go on"
	if cmd.Machine, err = machineOf(ctx, r, v); err != nil {
		return err
	}
	_, err = observe(ctx, r, v, cmd)
	return err
}

// saveAside saves the memory of a VM that went on at its source under the epoch that it had
// there. One that has ended meanwhile has none to save. Whether it has is asked of the node:
// a guest that is there, and cannot be saved now, is not given up for that.
func saveAside(ctx context.Context, r *run, m moving) error {
	save := &nodelink.Suspend{Header: head(r, m.v, m.Epoch, saveTime(m.v))}
	save.Step = r.Step + ": save"
	err := call(ctx, r, m.on(m.source), save, nil)
	if !errs.Is(err, errs.InvalidState) && !errs.Is(err, errs.NotFound) {
		return err
	}
	look := &nodelink.Look{Header: head(r, m.v, m.Epoch, stepTimeout)}
	look.Step = r.Step + ": look"
	var is nodelink.Report
	switch seen := call(ctx, r, m.on(m.source), look, &is); {
	case errs.Is(seen, errs.NotFound):
		return nil
	case seen != nil:
		return seen
	case is.Phase.OnNode():
		return errs.New(errs.Timeout, "VM %q is on node %s still, %s, and its memory could not be saved there: %s", m.v.Intent.Name, m.source.Name, is.Phase, errs.As(err).Message).Because(err)
	}
	return nil
}
