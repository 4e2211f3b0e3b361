package hypertest

import (
	"context"
	"crypto/rand"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
)

func moveFaultCases() []testCase {
	return []testCase{
		{"A move that is broken off at any stage leaves the source as it was", moveBrokenOff},
		{"A target that dies at any stage leaves the source as it was", targetDies},
		{"A wire that is cut at any stage leaves the source as it was", wireCut},
		{"A wire that breaks after any number of bytes leaves one that goes on", onTwo(wireBreaks)},
		{"A source that is killed at any stage is gone, and its target executes nothing", sourceKilled},
		{"A source that dies at any stage leaves a target that executes nothing", sourceDies},
		{"An agent that dies at the source at any stage leaves it as it was, or sent", sourceAgentDies},
		{"A stranger gets nowhere", onTwo(strangers)},
	}
}

// stages are those at which something can go wrong.
var stages = []contract.Stage{contract.StageDisks, contract.StageMemory, contract.StageSwitchover}

// eachStage has something happen at each stage of a move, of a guest that runs.
func (b *bench) eachStage(f func(h *hosts, t trip, s contract.Stage)) {
	h, ok := b.hosts()
	if !ok {
		return
	}
	for _, s := range stages {
		m := h.launch(Polite)
		h.ready(m.VM)
		t := h.depart(m)
		f(h, t, s)
		if h.Failed() {
			h.Fatalf("at stage %s", s)
		}
	}
}

// goesOn expects the source as it was, shows that it can still be moved, and cleans up.
func (h *hosts) goesOn(t trip) {
	h.Helper()
	h.asBefore(t, vm.PhaseRunning)
	again := h.depart(t.from)
	h.sent(again)
	h.handOver(again)
	h.far.PowerOffGuest(h.T, again.to.VM)
	h.far.await(again.to.Ref, vm.PhaseExited)
	h.far.clean(again.to)
}

func moveBrokenOff(b *bench) {
	b.eachStage(func(h *hosts, t trip, s contract.Stage) {
		ctx, cancel := context.WithCancel(h.ctx)
		defer cancel()
		got, err := h.send(ctx, t, atStage(s, cancel))
		if err == nil { // it was too late to break it off
			h.Logf("at %s it was sent: %+v", s, got)
			h.arrived(t)
			h.handOver(t)
			h.far.clean(t.to)
			return
		}
		h.goesOn(t)
	})
}

func targetDies(b *bench) {
	b.eachStage(func(h *hosts, t trip, s contract.Stage) {
		_, err := h.send(h.ctx, t, atStage(s, func() { h.far.CrashGuest(h.T, t.to.VM) }))
		if err == nil {
			h.Fatal("it was sent to what had died")
		}
		h.goesOn(t)
	})
}

func wireCut(b *bench) {
	b.eachStage(func(h *hosts, t trip, s contract.Stage) {
		if _, err := h.send(h.ctx, t, atStage(s, t.wire.Cut)); err == nil {
			h.Fatal("it was sent over a wire that was cut")
		}
		h.goesOn(t)
	})
}

// A stream that breaks with one of its last bytes may leave a target that has everything
// and a source that goes on: what is told of the source counts.
func wireBreaks(h *hosts) {
	for n := int64(64); n <= 64<<20; n *= 6 {
		m := h.launch(Polite)
		h.ready(m.VM)
		t := h.depart(m)
		h.Logf("after %d bytes", n)
		t.wire.CutAfter(n)
		_, err := h.send(h.ctx, t, nil)
		if err == nil {
			h.arrived(t)
			h.handOver(t)
			h.far.clean(t.to)
			continue
		}
		h.goesOn(t)
	}
}

func sourceKilled(b *bench) {
	b.eachStage(func(h *hosts, t trip, s contract.Stage) {
		killed := make(chan struct{})
		_, err := h.send(h.ctx, t, atStage(s, func() {
			go func() {
				defer close(killed)
				h.kill(t.from.Ref)
			}()
		}))
		<-killed
		if err == nil {
			h.Log("it was sent before it was killed")
		}
		h.clean(t.from)
		h.neverExecuted(t)
	})
}

func sourceDies(b *bench) {
	b.eachStage(func(h *hosts, t trip, s contract.Stage) {
		if _, err := h.send(h.ctx, t, atStage(s, func() { h.CrashGuest(h.T, t.from.VM) })); err == nil {
			h.Fatal("what had died was sent")
		}
		h.await(t.from.Ref, vm.PhaseCrashed)
		h.clean(t.from)
		h.neverExecuted(t)
	})
}

// neverExecuted expects of a target that it has not executed, and ends it.
func (h *hosts) neverExecuted(t trip) {
	h.Helper()
	for _, s := range h.far.rec.Of(t.to.VM) {
		if s.Phase == vm.PhaseRunning && s.Ref == t.to.Ref {
			h.Errorf("the target has executed: %+v", s)
		}
	}
	h.far.kill(t.to.Ref)
	h.far.clean(t.to)
}

func sourceAgentDies(b *bench) {
	b.eachStage(func(h *hosts, t trip, s contract.Stage) {
		reached, done := make(chan struct{}), make(chan error, 1)
		old := h.migrator()
		go func() {
			_, err := old.Send(h.ctx, t.from.Ref, t.landing, t.wire.Dial, atStage(s, func() { close(reached) }))
			done <- err
		}()
		select {
		case <-reached:
		case <-h.ctx.Done():
			h.Fatal("the stage did not come")
		}
		found := h.adoptOne(t.from.VM, nil)
		if err := <-done; err == nil && found.Reason != contract.SentAway {
			h.Fatalf("what was sent is found as %+v", found)
		}
		if found.Reason == contract.SentAway {
			h.arrived(t)
			h.handOver(t)
			h.far.clean(t.to)
			return
		}
		if found.Phase != vm.PhaseRunning {
			h.Fatalf("another agent finds %+v", found)
		}
		h.goesOn(t)
	})
}

func strangers(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	t := h.depart(m)
	noise := make([]byte, 4096)
	_, _ = rand.Read(noise)
	for _, s := range []contract.Stream{contract.StreamMemory, contract.StreamDisks} {
		c, err := Into(h.far.migrator, t.to.Ref)(h.ctx, s)
		if err != nil {
			h.Fatal(err)
		}
		if _, err := c.Write(noise); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			h.Log("a stranger was cut off: ", err)
		}
		_ = c.Close()
		quiet, err := Into(h.far.migrator, t.to.Ref)(h.ctx, s) // says nothing at all
		if err != nil {
			h.Fatal(err)
		}
		defer func() { _ = quiet.Close() }()
	}
	if s := h.far.inspect(m.VM); s.Phase != vm.PhaseIncoming {
		h.Fatalf("strangers left %+v", s)
	}
	other := t.landing // another one's pass is no pass
	other.Pass = append([]byte(nil), other.Pass...)
	other.Pass[len(other.Pass)-1] ^= 1
	if _, err := h.migrator().Send(h.ctx, m.Ref, other, t.wire.Dial, nil); err == nil {
		h.Fatal("it was sent with a pass that is not")
	}
	if s := h.inspect(m.VM); s.Phase != vm.PhaseRunning {
		h.Fatalf("the source is %+v", s)
	}
	h.sent(t) // the landing is still there
	h.handOver(t)
	h.far.clean(t.to)
}
