package sim

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Mode says who drives transitions.
type Mode int

// The modes.
const (
	// Auto lets transitions happen by themselves, after their latency.
	Auto Mode = iota
	// Explicit holds each transition until Host.Poke releases it.
	Explicit
)

// Transition is a change of a guest that takes time.
type Transition string

// The transitions.
const (
	TransitionLaunch   Transition = "launch"
	TransitionShutdown Transition = "shutdown"
	TransitionKill     Transition = "kill"
	TransitionPause    Transition = "pause"
	TransitionResume   Transition = "resume"
	TransitionReceive  Transition = "receive"
	TransitionSend     Transition = "send" // the last of a move, for which the guest is halted
)

// Latency is how long transitions take in Auto mode; zero happens at once.
type Latency struct {
	Launch, Shutdown, Kill, Pause, Resume, Receive, Send time.Duration
}

func (l Latency) of(t Transition) time.Duration {
	switch t {
	case TransitionLaunch:
		return l.Launch
	case TransitionShutdown:
		return l.Shutdown
	case TransitionKill:
		return l.Kill
	case TransitionPause:
		return l.Pause
	case TransitionResume:
		return l.Resume
	case TransitionReceive:
		return l.Receive
	case TransitionSend:
		return l.Send
	}
	return 0
}

// held is one transition waiting for Poke.
type held struct {
	what    Transition
	release chan struct{}
}

// wait lets a transition of a VM take its time. It ends early when ctx does.
func (h *Host) wait(ctx context.Context, vm id.ID, t Transition) error {
	if h.opt.Mode == Auto {
		d := h.opt.Latency.of(t)
		if d <= 0 {
			return ctx.Err()
		}
		return h.opt.Clock.Sleep(ctx, d)
	}
	g := &held{what: t, release: make(chan struct{})}
	h.mu.Lock()
	h.gates[vm] = append(h.gates[vm], g)
	h.wakeGates()
	h.mu.Unlock()
	select {
	case <-g.release:
		return nil
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		h.dropGate(vm, g)
		return ctx.Err()
	}
}

// instant tells whether a transition happens without any waiting.
func (h *Host) instant(t Transition) bool {
	return h.opt.Mode == Auto && h.opt.Latency.of(t) <= 0
}

// Poke releases the oldest transition of the VM that waits in Explicit mode,
// first waiting for one to come, and says which it was. The transition itself
// completes a moment later, seen by the sink.
func (h *Host) Poke(ctx context.Context, vm id.ID) (Transition, error) {
	for {
		h.mu.Lock()
		if q := h.gates[vm]; len(q) > 0 {
			g := q[0]
			h.dropGate(vm, g)
			close(g.release)
			h.mu.Unlock()
			return g.what, nil
		}
		changed := h.gatesChanged
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return "", errs.New(errs.Timeout, "no transition of VM %s came to be released", vm).Because(ctx.Err())
		}
	}
}

// Held lists the transitions of the VM that wait for Poke, oldest first.
func (h *Host) Held(vm id.ID) []Transition {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Transition
	for _, g := range h.gates[vm] {
		out = append(out, g.what)
	}
	return out
}

func (h *Host) dropGate(vm id.ID, g *held) {
	q := h.gates[vm]
	for i := range q {
		if q[i] == g {
			q = append(q[:i:i], q[i+1:]...)
			break
		}
	}
	if len(q) == 0 {
		delete(h.gates, vm)
		return
	}
	h.gates[vm] = q
}

func (h *Host) wakeGates() {
	close(h.gatesChanged)
	h.gatesChanged = make(chan struct{})
}
