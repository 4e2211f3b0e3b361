package qemu

import (
	"context"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

var _ contract.Sampler = (*Driver)(nil)

// Bounds of what QEMU samples: pages for each GiB.
const (
	leastSamples = 512
	mostSamples  = 16384
	// wantedSamples are wanted of all memory.
	wantedSamples = 4096
)

// Sample implements contract.Sampler. QEMU hashes some pages, waits a second and hashes them
// again: that costs the guest nothing, and tells whole MiB per second.
func (d *Driver) Sample(ctx context.Context, r contract.Ref) (int64, error) {
	g, err := d.started(r)
	if err == nil && g.sending() {
		err = errs.New(errs.InvalidState, "VM %s is being moved", r.VM)
	}
	if err != nil {
		return 0, err
	}
	pages := min(max(wantedSamples*unit.GiB/max(g.rec.Machine.MemoryBytes, 1), leastSamples), mostSamples)
	began := g.tell(ctx, "calc-dirty-rate", object{"calc-time": 1, "sample-pages": pages}, nil)
	if began != nil && errs.CodeOf(began) != errs.GuestFailure { // refused: somebody else looks already
		return 0, began
	}
	return g.untilSampled(ctx, began)
}

// untilSampled waits for a look, which has begun or was refused.
func (g *guest) untilSampled(ctx context.Context, began error) (int64, error) {
	for {
		rate, done, err := g.sampled(ctx)
		switch {
		case err != nil || done:
			return rate, err
		case began != nil && rate < 0: // nobody looks
			return 0, began
		}
		if err := g.nudged(ctx); err != nil {
			return 0, errs.New(errs.Timeout, "the memory of VM %s was not looked at in time", g.ref.VM).Because(err)
		}
	}
}

// sampled tells what a look has found, in bytes per second, once it is done; below 0 when
// none has begun.
func (g *guest) sampled(ctx context.Context) (rate int64, done bool, err error) {
	var is struct {
		Status string `json:"status"`
		Rate   *int64 `json:"dirty-rate"`
	}
	if err := g.tell(ctx, "query-dirty-rate", nil, &is); err != nil {
		return 0, false, err
	}
	switch {
	case is.Status == "measured" && is.Rate != nil:
		return (*is.Rate + 1) * unit.MiB, true, nil
	case is.Status == "unstarted":
		return -1, false, nil
	}
	return 0, false, nil
}
