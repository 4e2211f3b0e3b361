package hypertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func warmCases() []testCase {
	return []testCase{
		{"Disks are copied in rounds until the cutover, and the machine goes on at its target", warmly(warmMoves)},
		{"A round goes on where it was once a wire is mended that was cut", warmly(warmResumes)},
		{"A warm move that is broken off at any stage leaves the source as it was", warmly(warmBrokenOff)},
		{"A target that dies while disks are copied in rounds ends that", warmly(warmTargetDies)},
		{"A source that dies while its disks are copied in rounds leaves a target that executes nothing", warmly(warmSourceDies)},
		{"An agent that dies while disks are copied in rounds leaves the source as it was", warmly(warmAgentDies)},
		{"What is not copied in rounds is not cut over", warmly(warmRefuses)},
	}
}

// warmly makes a case of one that takes a driver that copies in rounds.
func warmly(run func(h *hosts)) func(b *bench) {
	return func(b *bench) {
		b.Helper()
		_, is := b.Driver().(contract.Warmer)
		if is != b.Driver().Capabilities().Warm {
			b.Fatalf("the driver is a Warmer: %v; its capabilities say %v", is, !is)
		}
		if h, ok := b.hosts(); ok && is {
			run(h)
		}
	}
}

// restless is a warm move with hardly a rest between two rounds.
var restless = contract.MoveOptions{Warm: true, Interval: 50 * time.Millisecond}

func (h *hosts) departsWarm() trip {
	h.Helper()
	m := h.launch(Polite)
	h.ready(m.VM)
	return h.departs(m, restless)
}

func (h *hosts) cutover(r contract.Ref) {
	h.Helper()
	w, ok := h.Driver().(contract.Warmer)
	if !ok {
		h.Error("the driver cannot copy in rounds any more")
	} else if err := w.Cutover(h.ctx, r); err != nil {
		h.Errorf("cutover: %v", err)
	}
}

// afterRounds runs f once, beside the move, when so many rounds have come to their end.
func afterRounds(n int64, f func()) func(contract.Progress) {
	var once sync.Once
	return func(p contract.Progress) {
		if p.Warm != nil && p.Warm.Rounds >= n {
			once.Do(func() { go f() })
		}
	}
}

func warmMoves(h *hosts) {
	t := h.departsWarm()
	var seen []contract.Stage
	var last contract.Progress
	over := afterRounds(3, func() {
		h.cutover(t.from.Ref)
		h.cutover(t.from.Ref) // again is no harm
	})
	s, err := h.send(h.ctx, t, func(p contract.Progress) {
		if last.Stage != p.Stage {
			seen = append(seen, p.Stage)
		}
		last = p
		over(p)
	})
	if err != nil || s.Reason != contract.SentAway {
		h.Fatalf("sent: %+v %v", s, err)
	}
	if want := []contract.Stage{contract.StageWarm, contract.StageSwitchover, contract.StageSent}; !slices.Equal(seen, want) {
		h.Fatalf("seen %v, want %v", seen, want)
	}
	if last.Warm == nil || last.Warm.Rounds < 3 || last.Warm.Cuts != 0 || last.DisksRemaining != 0 {
		h.Errorf("at the end: %+v %+v", last, last.Warm)
	}
	h.arrived(t)
	h.handOver(t)
	h.far.PowerOffGuest(h.T, t.to.VM) // it still listens
	h.far.await(t.to.Ref, vm.PhaseExited)
	h.far.clean(t.to)
}

func warmResumes(h *hosts) {
	t := h.departsWarm()
	var last contract.Progress
	cut := afterRounds(2, t.wire.Cut)
	var mended, ended sync.Once
	s, err := h.send(h.ctx, t, func(p contract.Progress) {
		last = p
		cut(p)
		if p.Warm != nil && p.Warm.Cut {
			mended.Do(t.wire.Mend)
		}
		if p.Warm != nil && !p.Warm.Cut && p.Warm.Cuts > 0 && p.Warm.Rounds > 3 {
			ended.Do(func() { go h.cutover(t.from.Ref) })
		}
	})
	if err != nil || s.Reason != contract.SentAway {
		h.Fatalf("sent: %+v %v, at %+v %+v", s, err, last, last.Warm)
	}
	h.arrived(t)
	h.handOver(t)
	h.far.clean(t.to)
}

func warmBrokenOff(h *hosts) {
	for _, s := range []contract.Stage{contract.StageWarm, contract.StageSwitchover} {
		t := h.departsWarm()
		ctx, cancel := context.WithCancel(h.ctx)
		over := afterRounds(1, func() { h.cutover(t.from.Ref) })
		rounds := afterRounds(2, cancel)
		_, err := h.send(ctx, t, func(p contract.Progress) {
			switch {
			case s == contract.StageWarm:
				rounds(p)
			case p.Stage == s:
				cancel()
			default:
				over(p)
			}
		})
		cancel()
		if err == nil {
			h.Fatalf("it was sent, and broken off at %s", s)
		}
		h.goesOn(t)
	}
}

func warmTargetDies(h *hosts) {
	t := h.departsWarm()
	_, err := h.send(h.ctx, t, afterRounds(1, func() { h.far.CrashGuest(h.T, t.to.VM) }))
	if err == nil {
		h.Fatal("it was sent to what had died")
	}
	h.goesOn(t)
}

func warmSourceDies(h *hosts) {
	t := h.departsWarm()
	if _, err := h.send(h.ctx, t, afterRounds(1, func() { h.CrashGuest(h.T, t.from.VM) })); err == nil {
		h.Fatal("what had died was sent")
	}
	h.await(t.from.Ref, vm.PhaseCrashed)
	h.clean(t.from)
	h.neverExecuted(t)
}

func warmAgentDies(h *hosts) {
	t := h.departsWarm()
	reached, done := make(chan struct{}), make(chan error, 1)
	old := h.migrator()
	go func() {
		_, err := old.Send(h.ctx, t.from.Ref, t.landing, t.wire.Dial, afterRounds(2, func() { close(reached) }))
		done <- err
	}()
	select {
	case <-reached:
	case <-h.ctx.Done():
		h.Fatal("the rounds did not come")
	}
	found := h.adoptOne(t.from.VM, nil)
	if err := <-done; err == nil || found.Phase != vm.PhaseRunning {
		h.Fatalf("another agent finds %+v, %v", found, err)
	}
	h.goesOn(t)
}

func warmRefuses(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	w, ok := h.Driver().(contract.Warmer)
	if !ok {
		h.Fatal("the driver cannot copy in rounds any more")
	}
	h.wantCode(w.Cutover(h.ctx, m.Ref), errs.InvalidState, "cutover of what is not moved")
	t := h.departs(m, restless)
	h.wantCode(w.Cutover(h.ctx, m.Ref), errs.InvalidState, "cutover of what has only departed")
	h.asBefore(t, vm.PhaseRunning)
	t = h.depart(m)
	if _, err := h.send(h.ctx, t, atStage(contract.StageDisks, func() {
		h.wantCode(w.Cutover(h.ctx, m.Ref), errs.InvalidState, "cutover of a live move")
	})); err != nil {
		h.Fatal(err)
	}
	h.wantCode(w.Cutover(h.ctx, m.Ref), errs.InvalidState, "cutover of what was sent")
	h.arrived(t)
	h.handOver(t)
	h.far.clean(t.to)
}
