package flows

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
)

// watchLive shows how far a move is, and keeps it at its pace, until it is stopped, and gives when it was known last,
// by the server's clock, that its guest was not halted for the end yet.
func watchLive(ctx context.Context, r *run, m moving, pace pacer) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	before := r.Env.Candidates.clock.Boot()
	go func() {
		defer close(done)
		for r.Env.Candidates.clock.Sleep(ctx, watchEvery) == nil {
			pace.keep(ctx, r, m)
			asked := r.Env.Candidates.clock.Boot()
			at, ok := lookLive(ctx, r, m)
			if ok && at.Stage != migration.PhaseSwitchover && at.Stage != migration.PhaseSent {
				before = asked
			}
		}
	}()
	return func() time.Duration { cancel(); <-done; return before }
}

// lookLive asks the source how far a move is, and shows it.
func lookLive(ctx context.Context, r *run, m moving) (at nodelink.MoveProgress, ok bool) {
	if r.Env.Nodes.Call(ctx, m.Source, &nodelink.AskMove{VM: m.v.Intent.ID, Migration: r.Job.ID}, &at) != nil {
		return at, false
	}
	moved, left := at.MemoryMoved+at.DisksMoved, at.MemoryRemaining+at.DisksRemaining
	if moved+left > 0 {
		_ = r.Progress(ctx, int(min(99, 100*moved/(moved+left))))
	}
	_ = progressed(ctx, r, at)
	return at, true
}

// progressed writes down how far a move is, and what was done where it stalled.
func progressed(ctx context.Context, r *run, at nodelink.MoveProgress) error {
	return write(ctx, r, func(tx *store.Tx) error { return progressedIn(ctx, tx, r, at) })
}

func progressedIn(ctx context.Context, tx *store.Tx, r *run, at nodelink.MoveProgress) error {
	p := migration.Progress{
		Phase: at.Stage, MemoryMoved: at.MemoryMoved, MemoryRemaining: at.MemoryRemaining, DisksMoved: at.DisksMoved, DisksRemaining: at.DisksRemaining,
		Rate: at.Rate, DirtyRate: at.DirtyRate, ExpectedDowntime: time.Duration(at.ExpectedDowntimeMS) * time.Millisecond,
		Throttle: at.Throttle,
	}
	if at.Warm != nil {
		w := warmthOf(at.Warm)
		p.Warm = &w
	}
	if at.Relayed {
		if err := tx.MigrationRelayed(ctx, r.Job.ID); err != nil {
			return err
		}
	}
	if err := tx.MigrationProgress(ctx, r.Job.ID, p); err != nil {
		return err
	}
	return tx.MigrationSteps(ctx, r.Job.ID, taken(at.Taken))
}

// taken takes a node's word for what it has done.
func taken(told []nodelink.StallStep) (out []migration.Taken) {
	for _, s := range told[:min(len(told), maxTold)] {
		t := migration.Taken{Key: nodelink.Text(s.Key), Age: time.Duration(s.AgeMS) * time.Millisecond}
		t.Step, t.Stall, t.Reason = migration.Step(nodelink.Text(s.Step)), migration.Stall(nodelink.Text(s.Stall)), nodelink.Text(s.Reason)
		t.Throttle, t.Downtime = s.Throttle, time.Duration(s.DowntimeMS)*time.Millisecond
		out = append(out, t)
	}
	return out
}

// maxTold bounds what a node may tell at once of what it has done.
const maxTold = 64
