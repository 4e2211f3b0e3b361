package qemu

import (
	"context"

	"github.com/novacron/novacron/internal/driver/hypervisor/cgroup"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.Limiter = (*Driver)(nil)

// Limit implements contract.Limiter. Processors are limited by the VM's cgroup, disks
// by QEMU itself, which can do so on any host. The record is written first: whoever
// adopts the guest after a crash in the middle brings the rest about.
func (d *Driver) Limit(ctx context.Context, r contract.Ref, l contract.Limits) error {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return err
	}
	defer leave()
	g, err := d.started(r)
	if err != nil {
		return err
	}
	if err := g.rec.Machine.ValidateLimits(l); err != nil {
		return err
	}
	if err := d.Capabilities().Allows(l); err != nil {
		return err
	}
	return g.limit(ctx, l)
}

// limit brings limits about, on record before and after. It is called in the VM's
// turn.
func (g *guest) limit(ctx context.Context, l contract.Limits) error {
	if err := g.write(limitsFile, limitsRecord{Limits: l}); err != nil {
		return err
	}
	if err := g.limitCPU(l); err != nil {
		return err
	}
	if err := g.limitDisks(ctx, l, true); err != nil {
		return err
	}
	return g.write(limitsFile, limitsRecord{Limits: l, Settled: true})
}

// limitGroup sets all limits of the cgroup of a machine that is launched.
func (g *guest) limitGroup() error {
	m := g.rec.Machine
	err := g.d.cgroups.Limit(g.rec.Group, cgroup.Limits{
		MemoryBytes: m.MemoryBytes + m.MemoryBytes/8 + overhead,
		Processes:   m.CPUs + threads,
		Devices:     devices(g.rec.Accel),
	})
	if err != nil {
		return errs.New(errs.HostFailure, "the cgroup of VM %s cannot be limited", m.VM).Because(err)
	}
	return g.limitCPU(m.Limits)
}

// limitCPU sets what the VM's cgroup may take of the processors.
func (g *guest) limitCPU(l contract.Limits) error {
	err := g.d.cgroups.LimitCPU(g.rec.group(g.ref.VM), cgroup.CPU{Weight: l.CPUWeight, CapPercent: l.CPUCapPercent})
	if err != nil {
		return errs.New(errs.HostFailure, "the CPUs of VM %s cannot be limited", g.ref.VM).Because(err)
	}
	return nil
}

// limitDisks tells QEMU the rates of each disk; those without only if all is set.
func (g *guest) limitDisks(ctx context.Context, to contract.Limits, all bool) error {
	if len(to.Disks) == 0 && !all {
		return nil
	}
	devices, err := g.diskDevices(ctx)
	if err != nil {
		return err
	}
	for i, disk := range g.rec.Machine.Disks {
		l, limited := to.Disks[disk.ID]
		if !limited && !all {
			continue
		}
		if err := g.tell(ctx, "block_set_io_throttle", throttle(devices[diskName(i)], l), nil); err != nil {
			return err
		}
	}
	return nil
}

// diskDevices gives the paths of the devices that have a backend, by the names of
// their nodes: that of virtio over PCI is beneath the device of our name.
func (g *guest) diskDevices(ctx context.Context) (map[string]string, error) {
	var blocks []struct {
		Device   string `json:"qdev"`
		Inserted struct {
			Node string `json:"node-name"`
		} `json:"inserted"`
	}
	if err := g.tell(ctx, "query-block", nil, &blocks); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, b := range blocks {
		out[b.Inserted.Node] = b.Device
	}
	return out, nil
}

// throttle makes the arguments of block_set_io_throttle; 0 is no limit there, too.
func throttle(device string, l contract.DiskLimits) object {
	return object{
		"id":   device,
		"iops": l.IOPS, "iops_rd": l.ReadIOPS, "iops_wr": l.WriteIOPS,
		"bps": l.BytesPerSecond, "bps_rd": l.ReadBytesPerSecond, "bps_wr": l.WriteBytesPerSecond,
	}
}

// settleLimits brings about what an agent that died was about to.
func (g *guest) settleLimits(ctx context.Context) {
	var r limitsRecord
	err := g.read(limitsFile, &r)
	if missing(err) || (err == nil && r.Settled) {
		return
	}
	if err == nil {
		err = g.limit(ctx, r.Limits)
	}
	if err != nil {
		g.d.log.Warn("the limits of an adopted guest could not be set", "vm", g.ref.VM, "error", err)
	}
}
