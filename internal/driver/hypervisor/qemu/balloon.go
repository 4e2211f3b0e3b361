package qemu

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
)

const (
	// balloonPath is the device by which a guest tells how it uses its memory.
	balloonPath = "/machine/peripheral/balloon0"
	// tellTime is how long its driver may take to tell, and tellLook spaces the looks.
	tellTime, tellLook = time.Second, 10 * time.Millisecond
)

// balloon is what QEMU has heard from the driver in the guest. What that does not tell
// is the largest number there is.
type balloon struct {
	// At is wall time, in seconds; 0 for never.
	At    int64 `json:"last-update"`
	Stats struct {
		Total     uint64 `json:"stat-total-memory"`
		Free      uint64 `json:"stat-free-memory"`
		Available uint64 `json:"stat-available-memory"`
		Caches    uint64 `json:"stat-disk-caches"`
	} `json:"stats"`
}

// memory asks the driver of the guest's balloon; nil when there is none, or it does not
// answer. It is asked by a timer that runs for as long as somebody waits.
func (g *guest) memory(ctx context.Context) *contract.GuestMemory {
	if g.Status().Phase != vm.PhaseRunning {
		return nil
	}
	begun := g.d.opt.Clock.Now().Unix()
	if g.pollBalloon(ctx, 1) != nil {
		return nil
	}
	defer func() { _ = g.pollBalloon(context.WithoutCancel(ctx), 0) }()
	ctx, cancel := g.d.within(ctx, tellTime)
	defer cancel()
	for {
		var b balloon
		if g.tell(ctx, "qom-get", object{"path": balloonPath, "property": "guest-stats"}, &b) != nil {
			return nil
		}
		if b.At >= begun {
			return b.memory()
		}
		if g.d.opt.Clock.Sleep(ctx, tellLook) != nil {
			return nil
		}
	}
}

func (g *guest) pollBalloon(ctx context.Context, seconds int) error {
	return g.tell(ctx, "qom-set", object{"path": balloonPath, "property": "guest-stats-polling-interval", "value": seconds}, nil)
}

// memory makes numbers of a stranger such as can be true.
func (b balloon) memory() *contract.GuestMemory {
	size := func(n uint64) int64 {
		if n > uint64(contract.MaxMemoryBytes) {
			return 0
		}
		return int64(n)
	}
	m := contract.GuestMemory{
		TotalBytes: size(b.Stats.Total), FreeBytes: size(b.Stats.Free),
		AvailableBytes: size(b.Stats.Available), CacheBytes: size(b.Stats.Caches),
	}.Known()
	return &m
}
