package hypertest

import (
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func diskCases() []testCase {
	return []testCase{
		{"GrowDisk makes a disk of a live guest larger, never smaller", growsDisk},
		{"GrowDisk refuses what is not there", growRefuses},
	}
}

// grower gives the driver's ability, or checks that it denies having it.
func (b *bench) grower() (contract.DiskGrower, bool) {
	b.Helper()
	g, is := b.Driver().(contract.DiskGrower)
	if is != b.Driver().Capabilities().GrowDisk {
		b.Fatalf("the driver is a DiskGrower: %v; its capabilities say %v", is, !is)
	}
	return g, is
}

func growsDisk(b *bench) {
	if _, ok := b.grower(); !ok {
		return
	}
	m := b.launch(Polite)
	disk := m.Disks[0].ID
	grow := func(size int64) error {
		g, _ := b.grower()
		return g.GrowDisk(b.ctx, m.Ref, disk, size)
	}
	for _, size := range []int64{8 * unit.MiB, 8 * unit.MiB, 9*unit.MiB + 512} {
		if err := grow(size); err != nil {
			b.Fatalf("grow to %d: %v", size, err)
		}
	}
	b.wantCode(grow(9*unit.MiB), errs.ShrinkNotAllowed, "smaller")
	if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	if err := grow(10 * unit.MiB); err != nil {
		b.Fatalf("while it is paused: %v", err)
	}
	// another agent knows the disks too, and the size they have by now
	b.adoptOne(m.VM, nil)
	b.wantCode(grow(9*unit.MiB), errs.ShrinkNotAllowed, "smaller, after a restart")
	if err := grow(11 * unit.MiB); err != nil {
		b.Fatalf("after a restart: %v", err)
	}
	if s := b.inspect(m.VM); s.Phase != vm.PhasePaused {
		b.Fatalf("growing a disk left the guest %s", s.Phase)
	}
	b.clean(m)
}

func growRefuses(b *bench) {
	g, ok := b.grower()
	if !ok {
		return
	}
	m := b.launch(Polite)
	b.wantCode(g.GrowDisk(b.ctx, m.Ref, id.New(), unit.GiB), errs.NotFound, "another disk")
	b.wantCode(g.GrowDisk(b.ctx, contract.Ref{VM: m.VM, Epoch: 7}, m.Disks[0].ID, unit.GiB), errs.StaleEpoch, "another epoch")
	b.wantCode(g.GrowDisk(b.ctx, contract.Ref{VM: id.New(), Epoch: 1}, m.Disks[0].ID, unit.GiB), errs.NotFound, "another VM")
	b.kill(m.Ref)
	b.wantCode(g.GrowDisk(b.ctx, m.Ref, m.Disks[0].ID, unit.GiB), errs.InvalidState, "a guest that ended")
	b.clean(m)
}
