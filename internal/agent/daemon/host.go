package daemon

import (
	"context"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/agent"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
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
	limit, err := cacheLimit(base, o)
	if err != nil {
		return drivers{}, err
	}
	cache, err := agent.OpenCache(images, agent.CacheOptions{Limit: limit, Clock: o.Clock, Log: o.Log})
	if err != nil {
		return drivers{}, err
	}
	return drivers{
		hypervisor: func(s hypervisor.Sink) (hypervisor.Driver, error) {
			return qemu.New(qemu.Options{
				NodeShort: id.Short(who.state.Node), DataDir: filepath.Join(base, "guests"),
				RunDir: o.RunDir, RAMDir: o.RAMDir, Binary: o.QEMU, Accel: o.Acceleration,
				Bridges: o.Bridges, Clock: o.Clock, Logger: o.Log, Sink: s,
			})
		},
		volumes: vols,
		inPool:  func(folder string) (volume.Driver, error) { return dir.OpenShared(folder, agent.Content) },
		images:  cache,
		inventory: func(ctx context.Context, d hypervisor.Driver) (nodelink.Inventory, error) {
			inv, err := inventory(ctx, d, vols, o.RAMDir, o.Share)
			inv.ImageCacheBytes = limit
			return inv, err
		},
	}, nil
}

// cacheLimit is what was asked for, or a tenth of this agent's part of the disk.
func cacheLimit(dir string, o Options) (int64, error) {
	if o.ImageCacheBytes > 0 {
		return o.ImageCacheBytes, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, errs.New(errs.HostFailure, "the disk of the node's folder does not tell its size").Because(err)
	}
	return int64(fs.Blocks) * fs.Bsize / 10 / int64(max(o.Share, 1)), nil
}

// HostFirmware lists what guests of this host can start by, "bios" the first.
func HostFirmware() []string { return qemu.HostFirmware() }
