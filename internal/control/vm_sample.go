package control

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// sampleTime bounds how long a plan, or a request, waits for a look at a guest's memory,
// which takes a second.
const sampleTime = 4 * time.Second

// sample has a VM's node look at how fast its guest changes memory. Where nobody can tell,
// nothing is known: that keeps nobody from moving. What was seen no longer ago than known
// will do.
func (s *Service) sample(ctx context.Context, v vm.View, r migration.Request, known time.Duration) migration.Changes {
	if !changing(v, r) {
		return migration.Changes{}
	}
	timed, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	var out nodelink.MemorySample
	err := s.cfg.Nodes.Call(timed, *v.Intent.NodeID, &nodelink.SampleMemory{VM: v.Intent.ID, Epoch: v.Intent.Epoch, KnownWithinMS: known.Milliseconds()}, &out)
	if err != nil {
		if !errs.Is(err, errs.Unsupported) {
			s.cfg.Log.Info("how fast a guest changes its memory cannot be told", "vm", v.Intent.ID, "error", err)
		}
		return migration.Changes{}
	}
	age := time.Duration(min(max(out.AgeMS, 0), known.Milliseconds())) * time.Millisecond
	return migration.Changes{
		DirtyRate: min(max(out.DirtyRate, 0), maxDirtyRate), From: migration.Sampled,
		SampledAt: s.cfg.Clock.Now().Add(-age).UTC().Round(time.Millisecond),
	}
}

// recent is how old a sample may be that a request is content with: nodes look more often.
const recent = 10 * time.Minute

// changing tells whether how fast a VM's guest changes memory matters to its move.
func changing(v vm.View, r migration.Request) bool {
	return r.Kind != migration.Cold && r.Kind != migration.Warm && v.Executes() && v.Observed.Phase == vm.PhaseRunning && v.Intent.NodeID != nil
}

// maxDirtyRate bounds what is believed of a node.
const maxDirtyRate = 1 << 50

// sampleOf is sample of a VM that is about to be moved, before the transaction that says
// whether it may be.
func (s *Service) sampleOf(ctx context.Context, ref string, r migration.Request) (vm.View, migration.Changes) {
	v, err := s.VM(ctx, ref)
	if err != nil {
		return v, migration.Changes{}
	}
	if _, err := vm.Decide(v, vm.Migrate); err != nil || !changing(v, r) {
		return v, migration.Changes{}
	}
	was, err := s.cfg.Store.MigrationSampled(ctx, v.Intent.ID, v.Intent.Epoch)
	if err == nil && s.cfg.Clock.Now().Sub(was.SampledAt) < recent {
		return v, was // its node may not have looked since it came
	}
	return v, s.sample(ctx, v, r, recent)
}

// changesOf is what is known of a VM's guest: what was sampled, if that was of the same
// incarnation, or what its last move tells.
func changesOf(ctx context.Context, tx *store.Tx, v, seen vm.View, sampled migration.Changes) (migration.Changes, error) {
	if sampled.Known() && v.Intent.ID == seen.Intent.ID && v.Intent.Epoch == seen.Intent.Epoch {
		return sampled, nil
	}
	rate, err := tx.MigrationDirtyRate(ctx, v.Intent.ID)
	return migration.ChangedWhenMoved(rate), err
}
