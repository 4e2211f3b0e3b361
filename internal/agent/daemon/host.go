package daemon

import (
	"context"

	"github.com/novacron/novacron/internal/agent"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// hostDrivers opens the drivers of a real node.
func hostDrivers(o Options, _ *identity) (drivers, error) {
	_, images := folders(o)
	cache, err := agent.OpenCache(images)
	if err != nil {
		return drivers{}, err
	}
	return drivers{
		hypervisor: func(hypervisor.Sink) (hypervisor.Driver, error) {
			return nil, errs.New(errs.Unsupported, "no hypervisor")
		},
		images: cache,
		inventory: func(ctx context.Context, d hypervisor.Driver) (nodelink.Inventory, error) {
			return inventory(ctx, d, nil, o.Share)
		},
	}, nil
}
