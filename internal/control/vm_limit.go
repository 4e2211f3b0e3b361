package control

import (
	"context"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// LimitDisk gives a disk other limits: a guest that runs has them at once, by a job.
// Without a job they are recorded, and the next start brings them.
func (s *Service) LimitDisk(ctx context.Context, c Caller, ref, disk string, l vm.DiskLimits) (Accepted, error) {
	var out Accepted
	if err := l.Validate(); err != nil {
		return out, err
	}
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := s.decided(ctx, tx, c, ref, vm.Limit)
		if err != nil {
			return err
		}
		d, err := v.Disk(disk)
		if err != nil {
			return err
		}
		out, err = s.limitDisk(ctx, tx, c, v, d, l)
		return err
	})
	return out, err
}

func (s *Service) limitDisk(ctx context.Context, tx *store.Tx, c Caller, v vm.View, d vm.Volume, l vm.DiskLimits) (Accepted, error) {
	out := Accepted{Object: d.ID}
	if d.Limits == l {
		return out, nil
	}
	if err := s.mayLimitDisk(ctx, tx, v, d, l); err != nil {
		return out, err
	}
	if err := tx.VolumeLimit(ctx, v.Intent, d.ID, l); err != nil {
		return out, err
	}
	detail := map[string]any{"disk": d.ID, "limits": map[string]any{"from": d.Limits, "to": l}}
	if !v.HasGuest() {
		r := c.record(vm.JobLimit, "vm", v.Intent.ID, v.Intent.Name)
		r.ProjectID, r.Detail = &s.cfg.Project, detail
		if err := tx.VMChanged(ctx, v.Intent, nil); err != nil {
			return out, err
		}
		return out, tx.AuditInsert(ctx, r)
	}
	job, err := s.limitJob(ctx, tx, c, v, flows.LimitsOf(v, &d), detail)
	out.Job = job
	return out, err
}

// mayLimitDisk refuses what the VM's node cannot do.
func (s *Service) mayLimitDisk(ctx context.Context, tx *store.Tx, v vm.View, d vm.Volume, l vm.DiskLimits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	next := v.After(vm.Step{Kind: vm.StepLimitDisk, Disk: d, Limits: l})
	return mayLimit(ctx, tx, v, next)
}

// mayLimit refuses limits that the VM cannot have now, or that its node cannot set.
func mayLimit(ctx context.Context, tx *store.Tx, v, next vm.View) error {
	if _, err := vm.Decide(v, vm.Limit); err != nil || v.Intent.NodeID == nil {
		return err
	}
	n, err := tx.NodeGet(ctx, v.Intent.NodeID.String())
	if err != nil {
		return err
	}
	if why := n.CannotLimit(next.Limited()); why != "" {
		return errs.New(errs.Unsupported, "VM %q cannot have that: node %s, which has its disks, %s", v.Intent.Name, n.Name, why)
	}
	return nil
}

// limitJob takes the VM for the job that brings its limits to its node.
func (s *Service) limitJob(ctx context.Context, tx *store.Tx, c Caller, v vm.View, p flows.LimitParams, detail map[string]any) (*id.ID, error) {
	if err := s.holds.On(v.Intent.NodeID); err != nil {
		return nil, err
	}
	j := workflow.NewJob{ID: id.New(), Kind: vm.JobLimit, Params: p, Cancellable: true}
	var err error
	if j.OpSeq, err = tx.VMHold(ctx, v.Intent, j.ID); err != nil {
		return nil, err
	}
	_, err = s.beginWith(ctx, tx, c, v, j, detail)
	return &j.ID, err
}
