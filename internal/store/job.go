package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/vocab/id"
)

var jobList = lister{
	columns: `j.id, j.project_id, j.kind, j.target_kind, j.target_id, j.target_name, j.state::text, j.op_seq, j.wait_reason,
  j.cancellable AND NOT j.cancel_requested, j.cancel_requested, j.progress, coalesce(j.error_code, ''), coalesce(j.error_message, ''),
  j.created_by, j.revision, j.created_at, j.started_at, j.finished_at`,
	from: "jobs j",
	filters: map[string]filter{
		"state": oneOf("j.state::text", "state", jobStates()...), "kind": anyOf("j.kind"), "target": named("j.target_name"),
	},
	sorts:       map[string]sortKey{"created_at": byID("j.id")},
	defaultSort: "-created_at",
	idColumn:    "j.id",
}

func scanJob(rows pgx.Rows) (job.Job, Next, error) {
	var j job.Job
	var next Next
	err := rows.Scan(&next.Key, &j.ID, &j.ProjectID, &j.Kind, &j.TargetKind, &j.TargetID, &j.TargetName, &j.State, &j.OpSeq, &j.WaitReason,
		&j.Cancellable, &j.CancelRequested, &j.Progress, &j.ErrorCode, &j.ErrorMessage,
		&j.CreatedBy, &j.Revision, &j.CreatedAt, &j.StartedAt, &j.FinishedAt)
	next.ID = j.ID
	return j, next, err
}

// JobList gives a page of a project's jobs and of those that belong to none.
func (s *Store) JobList(ctx context.Context, project id.ID, p Page) ([]job.Job, *Next, error) {
	l := jobList
	l.where = []string{"(j.project_id = $1 OR j.project_id IS NULL)"}
	return listRows(ctx, s.pool, l, p, scanJob, project)
}

// JobGet gives a job with its journal.
func (s *Store) JobGet(ctx context.Context, project id.ID, j id.ID) (job.Job, error) {
	l := jobList
	l.where = []string{"(j.project_id = $1 OR j.project_id IS NULL)", "j.id = $2"}
	found, _, err := listRows(ctx, s.pool, l, Page{Limit: 1}, scanJob, project, j)
	if err == nil && len(found) == 0 {
		err = NotFound("job", j.String())
	}
	if err != nil {
		return job.Job{}, err
	}
	out := found[0]
	steps, err := s.q.JobSteps(ctx, j)
	if err != nil {
		return out, pgtx.Map(err)
	}
	for _, r := range steps {
		step := job.Step{Position: int(r.Position), Name: r.Name, State: string(r.State), StartedAt: r.StartedAt, FinishedAt: r.FinishedAt}
		if r.Error != nil {
			step.Error = *r.Error
		}
		out.Steps = append(out.Steps, step)
	}
	return out, nil
}
