package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/engine/admit"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	// glanceEvery is how often is looked who is to be asked.
	glanceEvery = 5 * time.Second
	// glanceAtOnce bounds how many guests are asked at once: one that does not answer
	// takes seconds.
	glanceAtOnce = 4
	// A guest whose agent has not come yet is asked soon, and then less and less often up
	// to glanceCalm, as one that answers is; one that does not answer up to glanceRare.
	glanceSoon = glanceEvery
	glanceCalm = time.Minute
	glanceRare = 10 * time.Minute
	// A guest's addresses are written when they are others: changeBurst times at once,
	// and then once per changeEvery, whatever the guest says. Of what it said meanwhile
	// the last counts.
	changeBurst = 4
	changeEvery = 10 * time.Minute
	// mostChanging guests have a count of their own.
	mostChanging = 1 << 14
)

// foreteller is a driver that knows its guests' addresses before they say them: of the
// simulator's, a thousand of which start at once, none costs a second report.
type foreteller interface {
	Foretell(r hypervisor.Ref) []netip.Addr
}

func (r *reporter) foretold(f foreteller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.foretell = func(of hypervisor.Ref) []string { return texts(vm.KeptAddresses(nil, f.Foretell(of))) }
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}

// glances is when which guest is asked next.
type glances struct {
	rota[struct{}]
	changes *admit.Buckets[id.ID]
}

func newGlances() glances {
	return glances{newRota[struct{}](glanceSoon), admit.NewBuckets[id.ID](1/changeEvery.Seconds(), changeBurst, mostChanging)}
}

// asked says what became of a look.
func (g *glances) asked(r hypervisor.Ref, is hypervisor.AgentState, now time.Duration) {
	g.looked(r, now, func(_ *struct{}, last time.Duration) time.Duration { return waitAfter(is, last) })
}

// waitAfter is how long until a guest is asked again.
func waitAfter(is hypervisor.AgentState, last time.Duration) time.Duration {
	switch is {
	case hypervisor.AgentConnected:
		return glanceCalm
	case hypervisor.AgentAbsent:
		return min(2*last, glanceCalm)
	default:
		return min(max(2*last, glanceCalm), glanceRare)
	}
}

// glance asks the guests whose time has come.
func (a *Agent) glance(ctx context.Context) {
	d, err := a.guester()
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, glanceAtOnce)
	for _, r := range a.glances.due(a.reports.there(), a.cfg.Clock.Boot()) {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			a.glanceAt(ctx, d, r)
		})
	}
	wg.Wait()
}

func (a *Agent) glanceAt(ctx context.Context, d hypervisor.Guester, r hypervisor.Ref) {
	is, err := d.Glance(ctx, r)
	if err != nil {
		is.Agent = hypervisor.AgentUnresponsive // it ends, or somebody else asks it something
	}
	now := a.cfg.Clock.Boot()
	a.glances.asked(r, is.Agent, now)
	g := a.guest(r.VM)
	if is.Frozen {
		a.foundFrozen(ctx, g, r)
	}
	if !is.Told {
		return
	}
	told := a.addresses(g, is.Interfaces)
	if slices.Equal(told, a.reports.noted(r).Addresses) {
		return
	}
	if _, ok := a.glances.changes.Take(r.VM, now); !ok {
		return // it is asked again
	}
	a.reports.note(r, func(n *nodelink.GuestNote) { n.Addresses = told })
}

// addresses are those of a guest's interfaces that are kept.
func (a *Agent) addresses(g *guest, faces []hypervisor.GuestInterface) []string {
	macs := map[string]bool{}
	if m := g.snapshot().Machine; m != nil {
		for _, n := range m.NICs {
			macs[n.MAC] = true
		}
	}
	var own, others []netip.Addr
	for _, i := range faces {
		into := &others
		if macs[strings.ToLower(i.MAC)] {
			into = &own
		}
		for _, p := range i.Addresses {
			*into = append(*into, p.Addr())
		}
	}
	return texts(vm.KeptAddresses(own, others))
}
