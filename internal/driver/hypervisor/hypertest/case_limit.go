package hypertest

import (
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func limitCases() []testCase {
	return []testCase{
		{"Limits are set at the launch and changed under a live guest", limitsChange},
		{"Limit refuses what is not there, and what the host cannot do", limitRefuses},
	}
}

// limiter gives the driver's ability, or checks that it denies having it.
func (b *bench) limiter() (contract.Limiter, contract.Capabilities, bool) {
	b.Helper()
	l, is := b.Driver().(contract.Limiter)
	c := b.Driver().Capabilities()
	if some := c.CPUWeight || c.CPUCap || c.DiskLimits; is != some {
		b.Fatalf("the driver is a Limiter: %v; its capabilities: %v", is, some)
	}
	return l, c, is
}

// all are limits of each kind that the driver can set.
func all(c contract.Capabilities, m contract.Machine) contract.Limits {
	var l contract.Limits
	if c.CPUWeight {
		l.CPUWeight = 300
	}
	if c.CPUCap {
		l.CPUCapPercent = 150
	}
	if c.DiskLimits {
		l.Disks = map[id.ID]contract.DiskLimits{m.Disks[0].ID: {IOPS: 5000, WriteBytesPerSecond: unit.GiB}}
	}
	return l
}

func limitsChange(b *bench) {
	l, c, ok := b.limiter()
	if !ok {
		return
	}
	m := b.Machine(b.T, Polite)
	m.Limits = all(c, m)
	b.start(m)
	b.ready(m.VM)
	for range 2 {
		for _, to := range []contract.Limits{{}, all(c, m)} {
			if err := l.Limit(b.ctx, m.Ref, to); err != nil {
				b.Fatalf("limit to %+v: %v", to, err)
			}
		}
	}
	if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	if err := l.Limit(b.ctx, m.Ref, contract.Limits{}); err != nil {
		b.Fatalf("while it is paused: %v", err)
	}
	b.adoptOne(m.VM, nil)
	l, _, _ = b.limiter()
	if err := l.Limit(b.ctx, m.Ref, all(c, m)); err != nil {
		b.Fatalf("after a restart of the agent: %v", err)
	}
	if s := b.inspect(m.VM); s.Phase != vm.PhasePaused {
		b.Fatalf("limits left the guest %s", s.Phase)
	}
	b.clean(m)
}

func limitRefuses(b *bench) {
	l, c, ok := b.limiter()
	if !ok {
		return
	}
	m := b.launch(Polite)
	to := all(c, m)
	b.wantCode(l.Limit(b.ctx, contract.Ref{VM: m.VM, Epoch: 7}, to), errs.StaleEpoch, "another epoch")
	b.wantCode(l.Limit(b.ctx, contract.Ref{VM: id.New(), Epoch: 1}, to), errs.NotFound, "another VM")
	b.wantCode(l.Limit(b.ctx, m.Ref, contract.Limits{Disks: map[id.ID]contract.DiskLimits{id.New(): {IOPS: 1}}}), errs.NotFound, "another disk")
	b.wantCode(l.Limit(b.ctx, m.Ref, contract.Limits{Disks: map[id.ID]contract.DiskLimits{m.Disks[0].ID: {IOPS: 1, ReadIOPS: 1}}}), errs.InvalidField, "a total beside a part")
	b.wantCode(l.Limit(b.ctx, m.Ref, contract.Limits{CPUWeight: contract.MaxCPUWeight + 1}), errs.OutOfRange, "a weight out of range")
	if !c.CPUCap {
		b.wantCode(l.Limit(b.ctx, m.Ref, contract.Limits{CPUCapPercent: 10}), errs.Unsupported, "a cap where there is none")
	}
	b.kill(m.Ref)
	b.wantCode(l.Limit(b.ctx, m.Ref, to), errs.InvalidState, "a guest that ended")
	b.clean(m)
}
