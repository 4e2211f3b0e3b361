package qemu

import (
	"encoding/json"
	"fmt"
	"time"
)

// panicked is why a guest ends whose kernel gave up.
const panicked = "the guest's kernel panicked"

// A guest that resets itself so often within so long does nothing else: no system
// starts and ends its work that fast, and one that panics or faults at once does.
const (
	loopResets = 10
	loopTime   = time.Minute
)

// resets are the last times, since the host's boot, at which a guest reset itself.
type resets []time.Duration

// loops notes a reset and tells whether they have become a loop.
func (r *resets) loops(now time.Duration) bool {
	*r = append(*r, now)
	if len(*r) > loopResets {
		*r = (*r)[1:]
	}
	return len(*r) == loopResets && now-(*r)[0] < loopTime
}

// noteReset reads a RESET. It is called with g.mu held.
func (g *guest) noteReset(data json.RawMessage) {
	var e struct {
		Guest bool `json:"guest"`
	}
	if json.Unmarshal(data, &e) != nil || !e.Guest {
		return
	}
	g.d.log.Info("guest restarted itself", "vm", g.ref.VM)
	if g.resets.loops(g.d.opt.Clock.Boot()) {
		g.failed(fmt.Sprintf("the guest reset itself %d times within %s", loopResets, loopTime))
	}
}

// failed ends a guest that cannot go on: nobody asked for it, so that it counts as
// crashed, and what is to become of it is decided above. It is called with g.mu
// held.
func (g *guest) failed(why string) {
	if g.asked.Failed != "" || g.asked.Kill {
		return
	}
	g.d.background(func() {
		g.d.log.Warn("a guest is ended, since it cannot go on", "vm", g.ref.VM, "reason", why)
		err := g.noteAsked(askedRecord{Failed: why})
		if err == nil {
			err = g.kill(g.d.life)
		}
		if err != nil && g.d.life.Err() == nil {
			g.d.log.Error("a guest that cannot go on cannot be ended", "vm", g.ref.VM, "err", err)
		}
	})
}
