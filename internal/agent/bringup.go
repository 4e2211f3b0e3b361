package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// place is the guests that a host that starts brings up together, and how long it
// waits then.
type place struct {
	order  int
	guests []*guest
	delay  time.Duration
}

// bringUp starts again what the host's reboot ended, by the node's own records and
// plan, with or without a control plane. The first place is started at once; later
// ones wait their turn in the background, and show so.
func (a *Agent) bringUp(ctx context.Context, ended []*guest) {
	places := a.places(ended)
	if len(places) == 0 {
		return
	}
	for _, g := range places[0].guests {
		a.relaunch(ctx, g, g.snapshot())
	}
	for _, p := range places[1:] {
		for _, g := range p.guests {
			a.waits(g.snapshot(), p.order)
		}
	}
	a.work.Go(func() { a.bringUpRest(a.life, places) })
}

// places sorts guests by the plan; those that are started by hand alone are left
// as they are.
func (a *Agent) places(ended []*guest) []place {
	byOrder := map[int]*place{}
	for _, g := range ended {
		plan := a.plan.of(g.snapshot().VM)
		if plan.ByHand {
			a.leave(g)
			continue
		}
		p := byOrder[plan.Order]
		if p == nil {
			p = &place{order: plan.Order}
			byOrder[plan.Order] = p
		}
		p.guests = append(p.guests, g)
		p.delay = max(p.delay, time.Duration(plan.DelaySeconds)*time.Second)
	}
	out := make([]place, 0, len(byOrder))
	for _, order := range slices.Sorted(maps.Keys(byOrder)) {
		p := *byOrder[order]
		slices.SortFunc(p.guests, func(x, y *guest) int {
			return cmp.Compare(x.snapshot().VM.String(), y.snapshot().VM.String())
		})
		out = append(out, p)
	}
	return out
}

// leave reports a VM that is not started with its host, and sees to it that a
// later start of the agent does not either.
func (a *Agent) leave(g *guest) {
	rec := g.snapshot()
	if err := g.change(a.records, func(r *record) { r.PowerOn = false }); err != nil {
		a.log.Error("a VM's record cannot be written", "vm", rec.VM, "err", err)
	}
	a.reports.report(a.status(rec, vm.PhaseExited, "its node was started anew, and it is not started with it (autostart is off)"))
}

// waits reports a VM whose turn is not yet.
func (a *Agent) waits(rec record, order int) {
	a.reports.report(a.status(rec, vm.PhaseStarting, "its node was started anew and brings up others first: its place is "+strconv.Itoa(order)))
}

func (a *Agent) status(rec record, p vm.Phase, why string) hypervisor.Status {
	return hypervisor.Status{Ref: hypervisor.Ref{VM: rec.VM, Epoch: rec.Epoch}, Phase: p, Reason: why, Since: a.cfg.Clock.Now()}
}

// bringUpRest starts what comes after the first place. What somebody decided
// meanwhile counts: a command that is newer has changed the record.
func (a *Agent) bringUpRest(ctx context.Context, places []place) {
	for i, p := range places[1:] {
		if a.cfg.Clock.Sleep(ctx, places[i].delay) != nil {
			return
		}
		for _, g := range p.guests {
			if err := a.inTurn(ctx, g); err != nil {
				return
			}
		}
	}
}

// startWithHost starts a guest again that waited for another node's word, if that is what
// becomes of it.
func (a *Agent) startWithHost(ctx context.Context, g *guest) {
	if rec := g.snapshot(); rec.PowerOn && rec.Boot != a.cfg.Boot && a.plan.of(rec.VM).ByHand {
		a.leave(g)
		return
	}
	_ = a.inTurn(ctx, g)
}

// inTurn starts a guest again if that is still to be done.
func (a *Agent) inTurn(ctx context.Context, g *guest) error {
	select {
	case <-g.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { g.turn <- struct{}{} }()
	rec := g.snapshot()
	if !rec.PowerOn || rec.Erased || rec.Machine == nil || rec.Boot == a.cfg.Boot {
		return nil
	}
	a.relaunch(ctx, g, rec)
	return nil
}

// relaunch starts a VM that the host's reboot ended, by the node's own record.
func (a *Agent) relaunch(ctx context.Context, g *guest, rec record) {
	a.log.Info("starting a VM again after the host's reboot", "vm", rec.VM, "owner_epoch", rec.Epoch)
	// what is left of the incarnation that the reboot ended
	err := a.driver.Release(ctx, rec.VM)
	if err == nil {
		_, err = a.launch(ctx, g, rec.Epoch, *rec.Machine)
	}
	if err != nil {
		a.log.Error("a VM cannot be started again after the host's reboot", "vm", rec.VM, "err", err)
		phase := vm.PhaseCrashed
		if a.saved(rec.VM) {
			phase = vm.PhaseSuspended
		}
		a.reports.report(a.status(rec, phase, "it could not be started again after the node's reboot: "+errs.As(err).Message))
		return
	}
	// last: an agent that dies before this finds the guest running, or tries again
	if err := g.change(a.records, func(r *record) { r.Boot = a.cfg.Boot }); err != nil {
		a.log.Error("a VM's record cannot be written", "vm", rec.VM, "err", err)
	}
}
