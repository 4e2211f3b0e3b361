package daemon

import (
	"context"
	"path/filepath"

	"github.com/novacron/novacron/internal/agent"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/driver/volume/dir"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// hostDrivers opens the drivers of a real node: QEMU, volumes in a local folder,
// the image cache.
func hostDrivers(o Options, who *identity) (drivers, error) {
	base, err := filepath.Abs(o.DataDir)
	if err != nil {
		return drivers{}, errs.New(errs.HostFailure, "the node's folder has no absolute path").Because(err)
	}
	o.DataDir = base
	volumes, images := folders(o)
	vols, err := dir.Open(volumes)
	if err != nil {
		return drivers{}, err
	}
	cache, err := agent.OpenCache(images)
	if err != nil {
		return drivers{}, err
	}
	return drivers{
		hypervisor: func(s hypervisor.Sink) (hypervisor.Driver, error) {
			return qemu.New(qemu.Options{
				NodeShort: id.Short(who.state.Node), DataDir: filepath.Join(base, "guests"),
				RunDir: o.RunDir, RAMDir: o.RAMDir, Binary: o.QEMU, Accel: o.Acceleration,
				Clock: o.Clock, Logger: o.Log, Sink: s,
			})
		},
		volumes: vols,
		images:  cache,
		inventory: func(ctx context.Context, d hypervisor.Driver) (nodelink.Inventory, error) {
			return inventory(ctx, d, vols, o.RAMDir, o.Share)
		},
	}, nil
}
