package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// steward watches a guest's memory on its way and does what the request says when that
// does not come nearer to its end. It is at the source: it needs no server for that.
type steward struct {
	a      *Agent
	d      hypervisor.Migrator
	move   id.ID
	from   hypervisor.Ref
	steps  migration.Steps
	most   time.Duration
	window time.Duration
	// breakOff ends the move, with the reason.
	breakOff context.CancelCauseFunc

	// watch and means belong to who judges.
	watch migration.Watch
	means migration.Means

	mu    sync.Mutex
	last  hypervisor.Progress
	taken []stallStep
}

// stallStep is a step with when it was taken, by the clock of leases.
type stallStep struct {
	nodelink.StallStep
	at time.Duration
}

func (a *Agent) newSteward(d hypervisor.Migrator, move id.ID, from hypervisor.Ref, p *nodelink.StallPolicy, breakOff context.CancelCauseFunc) *steward {
	s := &steward{a: a, d: d, move: move, from: from, window: cmp.Or(a.cfg.StallWindow, migration.StallWindow), breakOff: breakOff}
	if p != nil {
		s.steps, s.most = migration.StepsOf(p.Steps), time.Duration(p.MaxDowntimeMS)*time.Millisecond
		s.means.Downtime = time.Duration(p.DowntimeMS) * time.Millisecond
	}
	return s
}

// saw takes how far the move is.
func (s *steward) saw(p hypervisor.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = p
}

// looksPerWindow is how often, within the window, the move is looked at.
const looksPerWindow = 40

// judge looks at the move until ctx ends.
func (s *steward) judge(ctx context.Context) {
	for s.a.cfg.Clock.Sleep(ctx, s.window/looksPerWindow) == nil {
		s.mu.Lock()
		p := s.last
		s.mu.Unlock()
		if p.Stage != hypervisor.StageMemory {
			s.watch.Forget()
			continue
		}
		s.watch.Add(migration.Sample{At: s.a.cfg.Clock.Boot(), Round: p.Round, Moved: p.MemoryMoved, Remaining: p.MemoryRemaining})
		if why := s.watch.Stalled(s.window); why != migration.NotStalled {
			s.answer(ctx, why, p)
			s.watch.Forget()
		}
	}
}

// answer takes the next step.
func (s *steward) answer(ctx context.Context, why migration.Stall, p hypervisor.Progress) {
	s.means.Throttle = max(s.means.Throttle, p.Throttle)
	step, means := s.steps.Answer(why, s.means, s.most)
	if !s.note(step, why, p, means) {
		return
	}
	switch step {
	case migration.GiveUp:
		s.breakOff(s.gaveUp(why, p))
	case migration.Throttle:
		s.adjust(ctx, step, means, hypervisor.Adjustment{Throttle: means.Throttle})
	case migration.Lengthen:
		s.adjust(ctx, step, means, hypervisor.Adjustment{Downtime: means.Downtime})
	case migration.Wait, migration.Anew:
	}
}

// adjust gives the move other means. Where that fails the next step is another one.
func (s *steward) adjust(ctx context.Context, step migration.Step, means migration.Means, a hypervisor.Adjustment) {
	s.means = means
	if err := s.d.Adjust(ctx, s.from, a); err != nil && ctx.Err() == nil {
		s.a.log.Warn("a move that stalls cannot be helped", "vm", s.from.VM, "step", step, "error", err)
	}
}

// note remembers a step; false when it is to wait, as it was the last time.
func (s *steward) note(step migration.Step, why migration.Stall, p hypervisor.Progress, means migration.Means) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.taken); step == migration.Wait && n > 0 && s.taken[n-1].Step == string(step) && s.taken[n-1].Stall == string(why) {
		return false
	}
	next := stallStep{at: s.a.cfg.Clock.Boot(), StallStep: nodelink.StallStep{
		Key: rand.Text(), Step: string(step), Stall: string(why), Reason: reasonOf(why, p, s.window), Throttle: means.Throttle, DowntimeMS: means.Downtime.Milliseconds(),
	}}
	s.taken = append(s.taken, next)
	s.taken = s.taken[max(0, len(s.taken)-maxTaken):]
	s.a.log.Info("a guest's move does not come nearer to its end", "vm", s.from.VM, "step", step, "reason", next.Reason, "throttle", means.Throttle, "downtime", means.Downtime)
	return true
}

// maxTaken bounds what is told of steps: stalls that change their kind again and again.
const maxTaken = 32

func reasonOf(why migration.Stall, p hypervisor.Progress, window time.Duration) string {
	left := unit.FormatBytes(p.MemoryRemaining)
	if why == migration.Silent {
		return fmt.Sprintf("nothing has been sent for %s, and %s of memory are left", window, left)
	}
	return fmt.Sprintf("its guest changes memory as fast as it is sent: %s/s of %s/s, and %s are left", unit.FormatBytes(p.DirtyRate), unit.FormatBytes(p.Rate), left)
}

// gaveUp says what was tried.
func (s *steward) gaveUp(why migration.Stall, p hypervisor.Progress) error {
	tried := "nothing was to be tried"
	if s.means.Throttle > 0 {
		tried = fmt.Sprintf("its processors were slowed down by %d%%, and it might be halted for %s", s.means.Throttle, s.means.Downtime)
	} else if s.tried() {
		tried = fmt.Sprintf("it might be halted for %s", s.means.Downtime)
	}
	return errs.New(errs.HostFailure, "the move of VM %s was given up, as it was asked to be, and it goes on here: %s; %s", s.from.VM, reasonOf(why, p, s.window), tried)
}

func (s *steward) tried() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.taken, func(t stallStep) bool { return t.Step == string(migration.Lengthen) })
}

// told lists the steps that were taken, as of now.
func (s *steward) told() (out []nodelink.StallStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.a.cfg.Clock.Boot()
	for _, t := range s.taken {
		t.AgeMS = (now - t.at).Milliseconds()
		out = append(out, t.StallStep)
	}
	return out
}
