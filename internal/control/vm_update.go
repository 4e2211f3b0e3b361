package control

import (
	"context"
	"maps"
	"strings"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// UpdateVM changes a VM's name, labels, size and what cloud-init is told, at once:
// all of it or nothing. Name and labels may change at any time, since everything on
// hosts is named by ids; the rest only while nothing runs, and the size only to what
// its node has room for. The next start brings the guest its new seed.
func (s *Service) UpdateVM(ctx context.Context, c Caller, ref string, change vm.Change) (id.ID, error) {
	var which id.ID
	if err := change.Validate(); err != nil {
		return which, err
	}
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return err
		}
		which = v.Intent.ID
		if err := c.believes(v); err != nil {
			return err
		}
		s.judge(&v)
		if change.SeedImage, err = s.sameCD(ctx, tx, v.Intent.SeedImage, change.SeedImage); err != nil {
			return err
		}
		_, err = s.update(ctx, tx, c, v, change)
		return err
	})
	return which, err
}

// update makes a change that is not nothing. It gives the job that brings limits to a
// guest, if there is one.
func (s *Service) update(ctx context.Context, tx *store.Tx, c Caller, v vm.View, change vm.Change) (*id.ID, error) {
	if !change.Differs(v.Intent) {
		return nil, nil
	}
	if err := s.holds.On(v.Intent.NodeID); err != nil && change.Rests(v.Intent) {
		return nil, err
	}
	if err := s.mayChange(ctx, tx, v, change); err != nil {
		return nil, err
	}
	next, err := s.reseeded(ctx, tx, v.Intent, change)
	if err != nil {
		return nil, err
	}
	if err := s.recordChange(ctx, tx, c, v, next); err != nil {
		return nil, err
	}
	if !change.Relimits(v.Intent) || !v.HasGuest() {
		return nil, nil
	}
	return s.limitJob(ctx, tx, c, v, flows.LimitsOf(v, nil), nil)
}

func (s *Service) recordChange(ctx context.Context, tx *store.Tx, c Caller, v vm.View, next vm.Intent) error {
	if err := tx.VMUpdate(ctx, next, v.Intent.Name); err != nil {
		return err
	}
	if next.Policy.Restart != v.Intent.Policy.Restart {
		if err := tx.RestartsForget(ctx, v.Intent.ID); err != nil {
			return err
		}
	}
	r := c.record("vm.update", "vm", v.Intent.ID, v.Intent.Name)
	r.ProjectID, r.Detail = &s.cfg.Project, differences(v.Intent, next)
	return tx.AuditInsert(ctx, r)
}

// mayChange refuses what the VM cannot get now: limits, a size, another seed,
// protection.
func (s *Service) mayChange(ctx context.Context, tx *store.Tx, v vm.View, change vm.Change) error {
	if change.Relimits(v.Intent) {
		next := v
		next.Intent = change.Apply(v.Intent)
		if err := mayLimit(ctx, tx, v, next); err != nil {
			return err
		}
	}
	if err := change.TooLate(v); err != nil || !change.Rests(v.Intent) {
		return err
	}
	if _, err := vm.Decide(v, vm.Resize); err != nil {
		return err
	}
	if err := change.OneBoard(v); err != nil {
		return err
	}
	if err := s.startsFrom(ctx, tx, v.Intent, change); err != nil {
		return err
	}
	if err := change.OneSeed(v.Intent); err != nil {
		return err
	}
	if _, err := s.reseeded(ctx, tx, v.Intent, change); err != nil {
		return err
	}
	return fits(ctx, tx, v.Intent, change.Apply(v.Intent))
}

// startsFrom refuses a board that cannot start from what the VM was made of.
func (s *Service) startsFrom(ctx context.Context, tx *store.Tx, in vm.Intent, change vm.Change) error {
	board := change.Apply(in).Hardware.Type
	if board == in.Hardware.Type || in.ImageID == nil {
		return nil
	}
	img, err := tx.ImageGet(ctx, in.ProjectID, in.ImageID.String())
	if err != nil {
		return err
	}
	return starts(board, img)
}

// starts refuses a board that cannot start from an image.
func starts(board string, img image.Image) error {
	if _, has := img.File(image.RoleKernel); board != vm.MachineMicro || has {
		return nil
	}
	return errs.New(errs.InvalidField, "a %s starts from a kernel, and image %q has none: take a q35 machine, or an image with a kernel", board, img.Name).
		At(errs.Field{Pointer: "/machine/type", Message: "starts from a kernel only", Got: board})
}

// believes refuses a request that was made of an older state of a VM.
func (c Caller) believes(v vm.View) error {
	if c.Revision == nil || *c.Revision == int64(v.Intent.Revision) {
		return nil
	}
	return errs.New(errs.RevisionMismatch, "VM %q is at revision %d: somebody changed it; read it again", v.Intent.Name, v.Intent.Revision)
}

// fits looks, under the lock of the node that has the VM's disks, whether it
// could start with the size it is to have. What gets smaller is not looked at: a
// VM may always ask for less.
func fits(ctx context.Context, tx *store.Tx, was, next vm.Intent) error {
	if next.NodeID == nil {
		return nil
	}
	var need scheduler.Request
	if next.CPUs > was.CPUs {
		need.CPUs = next.CPUs
	}
	if next.MemoryBytes > was.MemoryBytes {
		need.MemoryBytes = next.MemoryBytes
	}
	if next.Hardware != was.Hardware {
		need.Hardware = next.Hardware
	}
	n, err := tx.NodeGet(ctx, next.NodeID.String())
	if err != nil {
		return err
	}
	if why := scheduler.Room(n, need); len(why) > 0 {
		return errs.New(errs.NoNodeFits, "VM %q could not start with that: node %s, which has its disks, %s",
			was.Name, n.Name, strings.Join(why, " and "))
	}
	return nil
}

func seedName(in vm.Intent) string {
	if in.SeedImage == nil {
		return ""
	}
	return in.SeedImage.Name
}

// differences is what the audit log keeps of a change.
func differences(was, next vm.Intent) map[string]any {
	out := map[string]any{}
	note := func(what string, from, to any, differs bool) {
		if differs {
			out[what] = map[string]any{"from": from, "to": to}
		}
	}
	note("name", was.Name, next.Name, was.Name != next.Name)
	note("labels", was.Labels, next.Labels, !maps.Equal(was.Labels, next.Labels))
	note("cpus", was.CPUs, next.CPUs, was.CPUs != next.CPUs)
	note("memory_bytes", was.MemoryBytes, next.MemoryBytes, was.MemoryBytes != next.MemoryBytes)
	note("machine_type", was.Hardware.Type, next.Hardware.Type, was.Hardware.Type != next.Hardware.Type)
	note("cpu_model", was.Hardware.CPU, next.Hardware.CPU, was.Hardware.CPU != next.Hardware.CPU)
	note("firmware", was.Hardware.Firmware, next.Hardware.Firmware, was.Hardware.Firmware != next.Hardware.Firmware)
	note("seed_image", seedName(was), seedName(next), seedName(was) != seedName(next))
	note("cpu_weight", was.Limits.CPUWeight, next.Limits.CPUWeight, was.Limits.Normal().CPUWeight != next.Limits.Normal().CPUWeight)
	note("cpu_cap_percent", was.Limits.CPUCapPercent, next.Limits.CPUCapPercent, was.Limits.CPUCapPercent != next.Limits.CPUCapPercent)
	note("protected", was.Policy.Protected, next.Policy.Protected, was.Policy.Protected != next.Policy.Protected)
	note("restart_policy", was.Policy.Restart, next.Policy.Restart, was.Policy.Restart != next.Policy.Restart)
	note("autostart", !was.Policy.ByHand, !next.Policy.ByHand, was.Policy.ByHand != next.Policy.ByHand)
	note("start_order", was.Policy.StartOrder, next.Policy.StartOrder, was.Policy.StartOrder != next.Policy.StartOrder)
	note("start_delay_seconds", was.Policy.StartDelay.Seconds(), next.Policy.StartDelay.Seconds(), was.Policy.StartDelay != next.Policy.StartDelay)
	note("drain_policy", was.Policy.Drain, next.Policy.Drain, was.Policy.Drain.OrLive() != next.Policy.Drain.OrLive())
	if what := was.CloudInit.Changed(next.CloudInit); len(what) > 0 {
		out["cloud_init"] = map[string]any{"changed": what} // the texts may hold what is nobody's business
	}
	return out
}
