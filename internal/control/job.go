package control

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// onJob does something to a job, with its audit record.
func (s *Service) onJob(ctx context.Context, c Caller, action string, j id.ID, do func(context.Context, pgx.Tx, id.ID) error) (job.Job, error) {
	before, err := s.Job(ctx, j)
	if err != nil {
		return before, err
	}
	err = s.change(ctx, func(tx *store.Tx) error {
		if err := do(ctx, tx, j); err != nil {
			return err
		}
		r := c.record(action, "job", j, before.TargetName)
		r.JobID, r.ProjectID = &j, before.ProjectID
		return tx.AuditInsert(ctx, r)
	})
	if err != nil {
		return before, err
	}
	return s.Job(ctx, j)
}
