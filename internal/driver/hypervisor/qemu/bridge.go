package qemu

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// bridges are those that machines may join: allowed by the operator, and there.
func (d *Driver) bridges() []string {
	if len(d.opt.Bridges) == 0 || d.users == nil || tap.Usable() != nil {
		return nil
	}
	return slices.DeleteFunc(tap.Bridges(), func(b string) bool { return !slices.Contains(d.opt.Bridges, b) })
}

// mayJoin refuses a machine that names a bridge it may not join.
func (d *Driver) mayJoin(m contract.Machine) error {
	for _, n := range m.NICs {
		if n.Bridge == "" {
			continue
		}
		if d.users == nil {
			return errs.New(errs.Unsupported, "the agent does not run as root: it cannot join guests to bridges")
		}
		if err := tap.Usable(); err != nil {
			return errs.New(errs.Unsupported, "this node cannot join guests to bridges").Because(err)
		}
		if !slices.Contains(d.opt.Bridges, n.Bridge) {
			return errs.New(errs.Unsupported, "this node does not let guests onto bridge %q", errs.Clip(n.Bridge))
		}
		if !slices.Contains(tap.Bridges(), n.Bridge) {
			return errs.New(errs.NotFound, "this node has no bridge %q", errs.Clip(n.Bridge))
		}
	}
	return nil
}

// taps are the tap devices of a guest, by the slot of their interface. Their names are
// made of the node's short id and the guest's user, which no other guest of the
// machine has.
func (g *guest) taps() map[int]tap.Spec {
	out := map[int]tap.Spec{}
	for i, n := range g.rec.Machine.NICs {
		if n.Bridge == "" {
			continue
		}
		out[i] = tap.Spec{
			Table: tap.Table(g.d.opt.NodeShort), Bridge: n.Bridge, MAC: n.MAC,
			Name: "nv" + g.d.opt.NodeShort + number(g.rec.UID-g.d.opt.UIDs.First, 4) + number(i, 1),
		}
	}
	return out
}

// number writes the lower digits of n, in base 36.
func number(n, digits int) string {
	s := "0000" + strconv.FormatInt(int64(max(n, 0)), 36)
	return s[len(s)-digits:]
}

// openTaps makes a guest's taps, in the order of their slots; they are handed over
// behind its images.
func (g *guest) openTaps(ctx context.Context) ([]*os.File, error) {
	var out []*os.File
	specs := g.taps()
	g.guardFilters()
	g.d.filters.Lock()
	defer g.d.filters.Unlock()
	for i, n := range g.rec.Machine.NICs {
		s, ok := specs[i]
		if !ok {
			continue
		}
		f, err := tap.Open(ctx, s)
		if err != nil {
			return out, errs.New(errs.HostFailure, "interface %d of VM %s cannot be joined to bridge %s", i, g.ref.VM, n.Bridge).Because(err)
		}
		out = append(out, f)
	}
	return out, nil
}

// tapFDs are the descriptors at which QEMU finds the taps, by slot.
func tapFDs(m contract.Machine) map[int]int {
	out := map[int]int{}
	for i, n := range m.NICs {
		if n.Bridge != "" {
			out[i] = keeper.FilesFD + len(imagesOf(m)) + len(out)
		}
	}
	return out
}

// removeFilters removes what is left of a guest's taps, which are gone by themselves.
func (g *guest) removeFilters(ctx context.Context) error {
	var failed []error
	g.d.filters.Lock()
	defer g.d.filters.Unlock()
	for _, s := range g.taps() {
		failed = append(failed, tap.RemoveFilter(ctx, s.Table, s.Name))
	}
	return errors.Join(failed...)
}

// guardEvery is how often it is looked whether the filters of guests are there: whoever
// reloads the host's firewall may take them away.
const guardEvery = 5 * time.Second

// guardFilters has the filters of a guest looked after, with those of all others, until
// the driver is closed.
func (g *guest) guardFilters() {
	if len(g.taps()) > 0 {
		g.d.guard.Do(func() { g.d.background(g.d.lookAfterFilters) })
	}
}

func (d *Driver) lookAfterFilters() {
	for d.opt.Clock.Sleep(d.life, guardEvery) == nil {
		d.mendFilters(d.life)
	}
}

// mendFilters makes filters anew that are gone. A guest whose filter cannot be made is
// taken off the network.
func (d *Driver) mendFilters(ctx context.Context) {
	live := d.liveTaps()
	if len(live) == 0 {
		return
	}
	d.filters.Lock()
	defer d.filters.Unlock()
	gone, err := tap.Missing(ctx, tap.Table(d.opt.NodeShort), live)
	if err != nil {
		gone = live
	}
	for _, s := range gone {
		if !tap.Exists(s.Name) || ctx.Err() != nil {
			continue // its guest has just ended, or is about to have it
		}
		d.log.Warn("the filter of a guest's interface was gone and is made anew", "tap", s.Name, "bridge", s.Bridge)
		if err := tap.SetFilter(ctx, s); err != nil {
			d.log.Error("a guest's interface has no filter and is switched off", "tap", s.Name, "bridge", s.Bridge, "error", err, "off", tap.Disconnect(s.Name))
		}
	}
}

// liveTaps are those of all guests with a process.
func (d *Driver) liveTaps() []tap.Spec {
	d.mu.Lock()
	all := make([]*guest, 0, len(d.guests))
	for _, g := range d.guests {
		all = append(all, g)
	}
	d.mu.Unlock()
	var out []tap.Spec
	for _, g := range all {
		if !g.Status().Phase.OnNode() {
			continue
		}
		for _, s := range g.taps() {
			out = append(out, s)
		}
	}
	return out
}

// sweepFilters removes chains that are of no guest: their driver died between the end
// of a guest and this.
func (d *Driver) sweepFilters(ctx context.Context) {
	if d.users == nil || tap.Usable() != nil {
		return
	}
	table := tap.Table(d.opt.NodeShort)
	d.filters.Lock()
	defer d.filters.Unlock()
	chains, err := tap.Filters(ctx, table)
	for _, name := range chains {
		if tap.Exists(name) {
			continue
		}
		err = errors.Join(err, tap.RemoveFilter(ctx, table, name))
	}
	if err != nil {
		d.log.Warn("filters of guests that are gone could not be removed", "error", err)
	}
}
