package control

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// CutoverVM has the warm migration of a VM come to its end, at a time or, without one, as soon
// as its disks have been copied once. A time that was given before is replaced.
// errs.InvalidState where none is under way that could be.
func (s *Service) CutoverVM(ctx context.Context, c Caller, ref string, at *time.Time) (Accepted, error) {
	var out Accepted
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, ref)
		if err == nil {
			err = c.believes(v)
		}
		if err == nil {
			err = s.holds.On(v.Intent.NodeID)
		}
		if err != nil {
			return err
		}
		if v.Job == nil || v.Job.Kind != vm.JobMigrateWarm {
			return errs.New(errs.InvalidState, "VM %q has no warm migration under way: there is nothing to cut over", v.Intent.Name)
		}
		out = Accepted{Job: &v.Job.ID, Object: v.Intent.ID}
		when, err := tx.MigrationCutover(ctx, v.Job.ID, at)
		if err != nil {
			return err
		}
		rec := c.record("vm.cutover", "vm", v.Intent.ID, v.Intent.Name)
		rec.JobID, rec.ProjectID, rec.Detail = out.Job, &s.cfg.Project, map[string]any{"at": when.UTC().Format(time.RFC3339)}
		if err := tx.AuditInsert(ctx, rec); err != nil {
			return err
		}
		_, err = workflow.Wake(ctx, tx, workflow.Filter{Jobs: []id.ID{v.Job.ID}})
		return err
	})
	return out, err
}
