package flows

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// LimitParams are the parameters of vm.limit: what the limits were before.
type LimitParams struct {
	CPUWeight     int `json:"cpu_weight"`
	CPUCapPercent int `json:"cpu_cap_percent"`
	// Disk is the one whose limits change; nil when those of processors do.
	Disk *id.ID              `json:"disk,omitempty"`
	Was  nodelink.DiskLimits `json:"was,omitzero"`
}

// LimitsOf gives the parameters that bring a VM's limits, and those of a disk, back
// to what they are now.
func LimitsOf(v vm.View, disk *vm.Volume) LimitParams {
	p := LimitParams{CPUWeight: v.Intent.Limits.CPUWeight, CPUCapPercent: v.Intent.Limits.CPUCapPercent}
	if disk != nil {
		p.Disk, p.Was = &disk.ID, nodelink.DiskLimits(disk.Limits)
	}
	return p
}

// VMLimit brings limits that have changed to the node of a VM that has a guest
// there. They were recorded when the request was accepted. It unwinds to the limits
// of before, on the node and in the record; on a node that cannot be reached they are
// what the next start brings.
func VMLimit() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobLimit,
		Steps: []workflow.Step[Env]{
			{Name: "find node", Do: onceReported("the limits are set", nothing), Cancellable: true},
			{Name: "limit", Do: limit, Undo: unlimit},
		},
		Finish: finishLimit,
	}
}

func limit(ctx context.Context, r *run) (any, error) {
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, call(ctx, r, v, &nodelink.SetLimits{Header: head(r, v, v.Intent.Epoch, stepTimeout), Limits: limitsOf(v)}, nil)
}

// unlimit sets the limits of before on the node, unless that was removed by force.
func unlimit(ctx context.Context, r *run) error {
	var p LimitParams
	if err := r.Params(&p); err != nil {
		return err
	}
	v, err := load(ctx, r)
	if err != nil || v.Intent.NodeID == nil {
		return err
	}
	return call(ctx, r, v, &nodelink.SetLimits{Header: head(r, v, v.Intent.Epoch, stepTimeout), Limits: limitsOf(p.before(v))}, nil)
}

// before gives the VM with the limits that it had.
func (p LimitParams) before(v vm.View) vm.View {
	v.Intent.Limits = vm.Limits{CPUWeight: p.CPUWeight, CPUCapPercent: p.CPUCapPercent}
	if p.Disk == nil {
		return v
	}
	volumes := append([]vm.Volume{}, v.Volumes...)
	for i := range volumes {
		if volumes[i].ID == *p.Disk {
			volumes[i].Limits = vm.DiskLimits(p.Was)
		}
	}
	v.Volumes = volumes
	return v
}

// finishLimit ends the hold; what did not come about is not on record either.
func finishLimit(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	t := store.On(tx)
	var p LimitParams
	if err := r.Params(&p); err != nil {
		return err
	}
	v, err := t.VMGet(ctx, *r.Job.ProjectID, r.Job.Target.ID.String())
	if err != nil {
		return err
	}
	if !out.Succeeded() {
		if err := p.record(ctx, t, v); err != nil {
			return err
		}
	}
	return t.VMLetGo(ctx, v.Intent, r.Job.ID)
}

func (p LimitParams) record(ctx context.Context, t *store.Tx, v vm.View) error {
	if p.Disk != nil {
		return t.VolumeLimit(ctx, v.Intent, *p.Disk, vm.DiskLimits(p.Was))
	}
	return t.VMLimit(ctx, v.Intent.ID, p.before(v).Intent.Limits)
}

// limitsOf is what a node needs of a VM's limits.
func limitsOf(v vm.View) nodelink.Limits {
	l := v.Intent.Limits.Normal()
	out := nodelink.Limits{CPUWeight: l.CPUWeight, CPUCapPercent: l.CPUCapPercent}
	if l.CPUWeight == vm.DefaultCPUWeight {
		out.CPUWeight = 0
	}
	for _, d := range v.Volumes {
		if d.Limits == (vm.DiskLimits{}) {
			continue
		}
		if out.Disks == nil {
			out.Disks = map[id.ID]nodelink.DiskLimits{}
		}
		out.Disks[d.ID] = nodelink.DiskLimits(d.Limits)
	}
	return out
}
