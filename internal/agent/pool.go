package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// poolsEvery spaces looks at storage pools.
const poolsEvery = 20 * time.Second

// lookAtPools finds out what the node's storage pools are like now, all at once: one that
// does not answer keeps nobody waiting for the others.
func (a *Agent) lookAtPools(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range a.cfg.Pools {
		wg.Go(func() { p.Look(ctx) })
	}
	wg.Wait()
}

// pools is what the node says of them.
func (a *Agent) pools() []nodelink.Pool {
	var out []nodelink.Pool
	for _, p := range a.cfg.Pools {
		s := p.State()
		out = append(out, nodelink.Pool{ID: s.ID, Name: p.Name(), TotalBytes: s.TotalBytes, FreeBytes: s.FreeBytes, Why: s.Why})
	}
	return out
}

// tendPools looks at storage pools now and then, and tells servers of what has changed.
func (a *Agent) tendPools(ctx context.Context) {
	if len(a.cfg.Pools) == 0 {
		return
	}
	last := a.pools()
	for a.cfg.Clock.Sleep(ctx, poolsEvery) == nil {
		a.lookAtPools(ctx)
		now := a.pools()
		if slices.EqualFunc(now, last, alike) {
			continue
		}
		for i, p := range now {
			if p.Why != last[i].Why {
				a.log.Warn("a storage pool is another than it was", "pool", p.Name, "was", usable(last[i].Why), "is", usable(p.Why))
			}
			if p.Why == "" && last[i].Why != "" {
				a.bringUpIn(ctx, p.ID)
			}
		}
		if a.tellPools(ctx, now) {
			last = now
		}
	}
}

// bringUpIn starts again what the host's reboot ended and what could not be started then,
// because a storage pool came later than its node.
func (a *Agent) bringUpIn(ctx context.Context, p id.ID) {
	for _, g := range a.all() {
		if !slices.Contains(slices.Collect(maps.Values(g.snapshot().Pools)), p) {
			continue
		}
		if err := a.inTurn(ctx, g); err != nil {
			return
		}
	}
}

func usable(why string) string {
	if why == "" {
		return "usable"
	}
	return why
}

// alike tells whether nobody has to be told of a difference: a little space more or less
// is none.
func alike(a, b nodelink.Pool) bool {
	little := max(a.TotalBytes/100, 1)
	return a.ID == b.ID && a.Why == b.Why && a.TotalBytes == b.TotalBytes && a.FreeBytes/little == b.FreeBytes/little
}

// tellPools tells any server; true when one has taken it. A server of before there were
// pools takes nothing, and nothing is owed to it.
func (a *Agent) tellPools(ctx context.Context, now []nodelink.Pool) bool {
	for _, up := range a.ways() {
		err := a.call(ctx, up, nodelink.MethodPools, nodelink.Pools{NodeEpoch: a.cfg.Epoch, Items: now}, &nodelink.Done{})
		if err == nil || errs.Is(err, errs.Unsupported) {
			return true
		}
	}
	return false
}
