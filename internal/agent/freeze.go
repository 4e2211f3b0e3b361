package agent

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
)

// freeze is in a VM's record from before its guest is asked to freeze until it is known
// to be thawed, so that an agent that comes later thaws what this one cannot.
type freeze struct {
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
	// Until is by the host's own clock (clock.Clock.Boot) since its boot.
	Until time.Duration `json:"until_ns"`
	Boot  string        `json:"boot"`
}

const (
	// thawTime is how long a guest that is about to end may take to thaw.
	thawTime = 5 * time.Second
	// What could not be thawed is tried again: thawAgain later, and less and less often up
	// to thawRare.
	thawAgain = time.Second
	thawRare  = 30 * time.Second
)

func (a *Agent) freezer() (hypervisor.Freezer, error) {
	f, ok := a.driver.(hypervisor.Freezer)
	if !ok {
		return nil, errs.New(errs.Unsupported, "this node's hypervisor cannot have guests freeze their file systems")
	}
	return f, nil
}

// freezeGuest freezes for a bounded time, which begins before the guest is asked.
func (a *Agent) freezeGuest(ctx context.Context, _ Peer, c *nodelink.FreezeGuest) (any, error) {
	d, err := a.freezer()
	if err != nil {
		return nil, err
	}
	length := time.Duration(c.TimeMS) * time.Millisecond
	if err := vm.ValidateFreeze(length); err != nil {
		return nil, err
	}
	s, _, err := a.live(ctx, c.VM)
	if err != nil {
		return nil, err
	}
	if s.Epoch != c.Epoch || s.Phase != vm.PhaseRunning {
		return nil, errs.New(errs.InvalidState, "VM %s does not run", c.VM)
	}
	return a.freezeFor(ctx, d, s.Ref, length)
}

func (a *Agent) freezeFor(ctx context.Context, d hypervisor.Freezer, ref hypervisor.Ref, length time.Duration) (any, error) {
	g := a.guest(ref.VM)
	g.ice.Lock()
	defer g.ice.Unlock()
	if g.frozen() != nil {
		return nil, errs.New(errs.InvalidState, "the file systems in the guest of VM %s are frozen already", ref.VM)
	}
	is := freeze{Epoch: ref.Epoch, Until: a.cfg.Clock.Boot() + length, Boot: a.cfg.Boot}
	until := a.cfg.Clock.Now().Add(length)
	if err := g.change(a.records, func(r *record) { r.Frozen = &is }); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	n, err := d.Freeze(ctx, ref)
	if refusedToFreeze(err) {
		return nil, errsFirst(err, g.change(a.records, func(r *record) { r.Frozen = nil }))
	}
	if err != nil {
		a.tend(g, ref, is, 0) // nobody can tell whether it is frozen: it is thawed now
		return nil, err
	}
	a.tend(g, ref, is, is.Until-a.cfg.Clock.Boot())
	a.reports.note(ref, func(n *nodelink.GuestNote) { n.Frozen = &nodelink.FrozenNote{Until: until} })
	return nodelink.FreezeReply{FileSystems: n, Until: until}, nil
}

// refusedToFreeze tells whether an error shows that nothing is frozen.
func refusedToFreeze(err error) bool {
	switch errs.CodeOf(err) {
	case errs.GuestAgent, errs.GuestFailure, errs.InvalidState, errs.StaleEpoch, errs.NotFound, errs.Conflict:
		return err != nil
	default:
		return false
	}
}

func errsFirst(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// frozen gives the freeze that the record has of the incarnation that it has.
func (g *guest) frozen() *freeze {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rec.Frozen
}

// thawGuest thaws before the time is over.
func (a *Agent) thawGuest(ctx context.Context, _ Peer, c *nodelink.ThawGuest) (any, error) {
	g := a.guest(c.VM)
	g.ice.Lock()
	defer g.ice.Unlock()
	return nodelink.Done{}, a.thaw(ctx, g, hypervisor.Ref{VM: c.VM, Epoch: c.Epoch})
}

// thaw is called with g.ice held.
func (a *Agent) thaw(ctx context.Context, g *guest, r hypervisor.Ref) error {
	d, err := a.freezer()
	if err != nil {
		return err
	}
	if err := d.Thaw(ctx, r); err != nil {
		return err
	}
	return a.thawed(g, r)
}

// thawed notes that nothing is frozen.
func (a *Agent) thawed(g *guest, r hypervisor.Ref) error {
	a.reports.note(r, func(n *nodelink.GuestNote) { n.Frozen = nil })
	if g.frozen() == nil {
		return nil
	}
	return g.change(a.records, func(rec *record) { rec.Frozen = nil })
}

// thawFirst thaws what is about to end, or to be saved: a guest with file systems that
// are frozen does not shut down, and one that goes on later must not be.
func (a *Agent) thawFirst(ctx context.Context, g *guest, r hypervisor.Ref) {
	if g.frozen() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, thawTime)
	defer cancel()
	g.ice.Lock()
	defer g.ice.Unlock()
	if err := a.thaw(ctx, g, r); err != nil {
		a.log.Warn("a guest's file systems are frozen, and its agent does not thaw them", "vm", r.VM, "err", err)
	}
}

// findFrozen takes up what an agent before this one left frozen.
func (a *Agent) findFrozen(g *guest, alive bool) error {
	is := g.frozen()
	if is == nil {
		return nil
	}
	last := a.reports.newest(g.snapshot().VM)
	if !alive || last == nil || is.Epoch != last.Epoch {
		return g.change(a.records, func(r *record) { r.Frozen = nil })
	}
	left := is.Until - a.cfg.Clock.Boot()
	if is.Boot != a.cfg.Boot || left > vm.MaxFreeze {
		left = 0
	}
	r := hypervisor.Ref{VM: last.VM, Epoch: last.Epoch}
	until := a.cfg.Clock.Now().Add(max(left, 0))
	a.reports.note(r, func(n *nodelink.GuestNote) { n.Frozen = &nodelink.FrozenNote{Until: until} })
	a.tend(g, r, *is, left)
	return nil
}

// foundFrozen thaws a guest that says that it is frozen, if no freeze of ours is the
// reason: nobody else would.
func (a *Agent) foundFrozen(ctx context.Context, g *guest, r hypervisor.Ref) {
	if !g.ice.TryLock() {
		return
	}
	defer g.ice.Unlock()
	if g.frozen() != nil {
		return
	}
	a.log.Warn("a guest's file systems are frozen, and nobody holds them: they are thawed", "vm", r.VM)
	if err := a.thaw(ctx, g, r); err != nil {
		a.log.Warn("a guest's file systems cannot be thawed", "vm", r.VM, "err", err)
	}
}

// tend thaws a freeze when its time is over, and tries until that is done or the guest
// is gone.
func (a *Agent) tend(g *guest, r hypervisor.Ref, is freeze, wait time.Duration) {
	a.work.Go(func() {
		for again := thawAgain; ; again = min(2*again, thawRare) {
			if wait > 0 && a.cfg.Clock.Sleep(a.life, wait) != nil {
				return
			}
			if a.tended(g, r, is) {
				return
			}
			wait = again
		}
	})
}

// tended tells whether nothing is left to do for a freeze.
func (a *Agent) tended(g *guest, r hypervisor.Ref, is freeze) bool {
	g.ice.Lock()
	defer g.ice.Unlock()
	if now := g.frozen(); now == nil || *now != is {
		return true
	}
	if !a.reports.is(r) {
		return a.thawed(g, r) == nil
	}
	ctx, cancel := context.WithTimeout(a.life, thawTime)
	defer cancel()
	err := a.thaw(ctx, g, r)
	if err == nil || a.life.Err() != nil {
		return true
	}
	a.reports.note(r, func(n *nodelink.GuestNote) {
		why := "the time is over, and the guest's agent does not thaw its file systems (" + errs.As(err).Message + "): thaw them in the guest, or restart the VM"
		if n.Frozen == nil {
			n.Frozen = &nodelink.FrozenNote{Until: a.cfg.Clock.Now()}
		}
		told := *n.Frozen
		told.Reason = why
		n.Frozen = &told
	})
	return false
}
