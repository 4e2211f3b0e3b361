-- name: InsertJob :exec
WITH j AS (
  INSERT INTO jobs (id, project_id, kind, target_kind, target_id, target_name, params, op_seq, cancellable, created_by, request_id)
  VALUES (@id, @project_id, @kind, @target_kind, @target_id, @target_name, @params, @op_seq, @cancellable, @created_by, @request_id)
  RETURNING *)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
  jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
    'target_name', c.target_name, 'step', '', 'wait_reason', c.wait_reason)
FROM j c;

-- name: InsertClaimed :exec
-- A job that is born in its executor's hands: steps before next are done.
WITH j AS (
  INSERT INTO jobs (id, project_id, kind, target_kind, target_id, target_name, params, op_seq, cancellable, created_by, request_id,
    state, holder, fence, started_at, progress)
  VALUES (@id, @project_id, @kind, @target_kind, @target_id, @target_name, @params, @op_seq, @cancellable, @created_by, @request_id,
    'running', @holder::uuid, @fence, now(), @progress)
  RETURNING *),
journal AS (
  INSERT INTO job_steps (job_id, position, name, state, output, finished_at)
  SELECT j.id, s.position, s.name, CASE WHEN s.position < @next::int THEN 'done' ELSE 'running' END::step_state,
    nullif(s.output, '')::jsonb, CASE WHEN s.position < @next::int THEN now() END
  FROM j, (SELECT unnest(@positions::int[]) AS position, unnest(@names::text[]) AS name, unnest(@outputs::text[]) AS output) s)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
  jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
    'target_name', c.target_name, 'step', @step::text, 'wait_reason', c.wait_reason)
FROM j c;

-- name: JobEvent :exec
-- What watchers of jobs see; they read the job for more.
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
SELECT j.project_id, 'job.updated', 'job', j.id, j.kind, j.id,
  jsonb_build_object('state', j.state, 'progress', j.progress, 'target_kind', j.target_kind, 'target_id', j.target_id,
    'target_name', j.target_name, 'step', @step::text, 'wait_reason', j.wait_reason)
FROM jobs j WHERE j.id = @id;

-- name: Holders :many
SELECT DISTINCT holder::uuid AS holder FROM jobs
WHERE state IN ('queued', 'running', 'waiting', 'unwinding') AND holder IS NOT NULL AND holder <> @me::uuid;

-- name: ClaimJobs :many
-- active is what the claiming executor drives already; a job it holds and does
-- not drive was dropped (its membership ran out, or a write failed). One that is
-- not 2 s old may have been born there since active was read.
-- The commit does not wait for the disk: nothing is done on a claim before an
-- entry of its journal has committed, which does, and takes earlier records along.
-- The database's clock may have been put back: no job waits longer than a minute, so
-- one that is due later than that is due now, and so is one that has begun later.
WITH due AS (
  SELECT d.id, d.state AS was FROM jobs d
  WHERE d.state IN ('queued', 'running', 'waiting', 'unwinding') AND (d.wake_at <= now() OR d.wake_at > now() + interval '90 s')
    AND d.kind = ANY(@kinds::text[])
    AND (d.holder IS NULL OR d.holder = ANY(@dead::uuid[]) OR (d.holder = @me::uuid AND d.id <> ALL(@active::uuid[]) AND (d.fence > 1 OR d.started_at NOT BETWEEN now() - interval '2 s' AND now() + interval '10 s')))
  ORDER BY d.wake_at LIMIT @most FOR UPDATE SKIP LOCKED),
claimed AS (
  UPDATE jobs j SET holder = @me::uuid, fence = fence + 1,
    state = CASE WHEN state = 'unwinding' THEN state ELSE 'running'::job_state END,
    started_at = coalesce(started_at, now())
  FROM due WHERE j.id = due.id
  RETURNING j.*, due.was),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
  SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
    jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
      'target_name', c.target_name, 'step', ''::text, 'wait_reason', c.wait_reason)
  FROM claimed c WHERE c.state <> c.was)
SELECT id, project_id, kind, target_kind, target_id, target_name, state, params, op_seq, fence, wakes,
  cancel_requested, progress, unwind_code, unwind_message, created_by, request_id,
  set_config('synchronous_commit', 'off', true) AS relaxed
FROM claimed;

-- name: StepsOf :many
SELECT * FROM job_steps WHERE job_id = ANY(@jobs::uuid[]) ORDER BY job_id, position;

-- name: LockClaim :one
SELECT fence FROM jobs WHERE id = @id AND holder = @holder::uuid AND fence = @fence FOR UPDATE;

-- name: Advance :one
-- One step done and the next begun, at once; done is -1 when a claim begins.
-- Nothing happens when the claim is lost or somebody asked to cancel. Relaxed: the
-- commit does not wait for the disk, see workflow.Step.InDatabase.
WITH j AS (
  UPDATE jobs u SET progress = @progress, cancellable = @cancellable, wait_reason = ''
  WHERE u.id = @id AND u.holder = @holder::uuid AND u.fence = @fence AND NOT u.cancel_requested
  RETURNING u.*),
done AS (
  UPDATE job_steps s SET state = 'done', output = @output, failures = 0, error_code = NULL, error_message = NULL, finished_at = now()
  FROM j WHERE s.job_id = j.id AND s.position = @done::int),
began AS (
  INSERT INTO job_steps (job_id, position, name, state) SELECT j.id, @next::int, @name::text, 'running' FROM j
  ON CONFLICT (job_id, position) DO NOTHING),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
  SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
    jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
      'target_name', c.target_name, 'step', @name::text, 'wait_reason', c.wait_reason)
  FROM j c WHERE @done::int >= 0)
SELECT wakes, CASE WHEN @relaxed::boolean THEN set_config('synchronous_commit', 'off', true) END AS relaxed FROM j;

-- name: ClaimState :one
SELECT cancel_requested FROM jobs WHERE id = @id AND holder = @holder::uuid AND fence = @fence;

-- name: SetProgress :execrows
UPDATE jobs SET progress = @progress WHERE id = @id AND holder = @holder::uuid AND fence = @fence;

-- name: StepDone :exec
UPDATE job_steps SET state = 'done', output = @output, failures = 0, error_code = NULL, error_message = NULL, finished_at = now()
WHERE job_id = @job_id AND position = @position;

-- name: StepFailed :exec
UPDATE job_steps SET state = 'failed', failures = 0, error_code = @code::text, error_message = @message::text, finished_at = now()
WHERE job_id = @job_id AND position = @position;

-- name: StepUndoing :exec
UPDATE job_steps SET state = 'undoing' WHERE job_id = @job_id AND position = @position;

-- name: StepUndone :exec
UPDATE job_steps SET state = 'undone', failures = 0, finished_at = now() WHERE job_id = @job_id AND position = @position;

-- name: Unwind :execrows
UPDATE jobs SET state = 'unwinding', cancellable = false, wait_reason = '',
  unwind_code = @code::text, unwind_message = @message::text, error_code = @code::text, error_message = @message::text
WHERE id = @id AND holder = @holder::uuid AND fence = @fence;

-- name: Park :one
-- A wake that came since the claim looked counts as already due. The failure
-- of a do is recorded with the step (none for a step that merely waits); those of
-- an undo are only counted: why the step failed stays.
WITH j AS (
  UPDATE jobs u SET holder = NULL, wait_reason = @reason,
    state = CASE WHEN u.state = 'unwinding' THEN u.state ELSE 'waiting'::job_state END,
    wake_at = CASE WHEN u.wakes <> @wakes THEN now() ELSE now() + make_interval(secs => @seconds::float8) END
  WHERE u.id = @id AND u.holder = @holder::uuid AND u.fence = @fence
  RETURNING u.*),
failed AS (
  UPDATE job_steps s SET failures = @failures::int,
    error_code = CASE WHEN s.state = 'running' THEN sqlc.narg('code')::text ELSE s.error_code END,
    error_message = CASE WHEN s.state = 'running' THEN sqlc.narg('message')::text ELSE s.error_message END
  FROM j WHERE s.job_id = j.id AND s.position = @position::int),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
  SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
    jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
      'target_name', c.target_name, 'step', @name::text, 'wait_reason', c.wait_reason)
  FROM j c)
SELECT wake_at FROM j;

-- name: Release :exec
UPDATE jobs SET holder = NULL WHERE id = @id AND holder = @holder::uuid AND fence = @fence;

-- name: End :one
-- The job's end with what its journal lacks: the last step done (-1 for none) or
-- steps undone. Counts no job when the claim is lost or somebody asked to cancel.
WITH j AS (
  UPDATE jobs u SET state = @state::job_state, holder = NULL, finished_at = now(), cancellable = false, wait_reason = '',
    progress = CASE WHEN @state::job_state = 'succeeded' THEN 100 ELSE u.progress END,
    error_code = u.unwind_code, error_message = u.unwind_message
  WHERE u.id = @id AND u.holder = @holder::uuid AND u.fence = @fence
    AND (NOT u.cancel_requested OR @state::job_state <> 'succeeded')
  RETURNING u.*),
done AS (
  UPDATE job_steps s SET state = 'done', output = @output, failures = 0, error_code = NULL, error_message = NULL, finished_at = now()
  FROM j WHERE s.job_id = j.id AND s.position = @done::int),
undone AS (
  UPDATE job_steps s SET state = 'undone', failures = 0, finished_at = now()
  FROM j WHERE s.job_id = j.id AND s.position = ANY(@undone::int[])),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
  SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
    jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
      'target_name', c.target_name, 'step', ''::text, 'wait_reason', c.wait_reason)
  FROM j c)
SELECT count(*) FROM j;

-- name: EndAll :many
-- End for jobs of one holder that have succeeded. Those that are not given back did
-- not end.
WITH input AS (
  SELECT unnest(@ids::uuid[]) AS id, unnest(@fences::bigint[]) AS fence, unnest(@done::int[]) AS done, unnest(@outputs::text[]) AS output),
mine AS (
  SELECT u.id, i.done, i.output FROM jobs u JOIN input i ON i.id = u.id
  WHERE u.holder = @holder::uuid AND u.fence = i.fence AND NOT u.cancel_requested
  ORDER BY u.id FOR NO KEY UPDATE OF u),
j AS (
  UPDATE jobs u SET state = 'succeeded', holder = NULL, finished_at = now(), cancellable = false, wait_reason = '', progress = 100,
    error_code = u.unwind_code, error_message = u.unwind_message
  FROM mine m WHERE u.id = m.id
  RETURNING u.*, m.done, m.output),
done AS (
  UPDATE job_steps s SET state = 'done', output = j.output::jsonb, failures = 0, error_code = NULL, error_message = NULL, finished_at = now()
  FROM j WHERE s.job_id = j.id AND s.position = j.done),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
  SELECT c.project_id, 'job.updated', 'job', c.id, c.kind, c.id,
    jsonb_build_object('state', c.state, 'progress', c.progress, 'target_kind', c.target_kind, 'target_id', c.target_id,
      'target_name', c.target_name, 'step', ''::text, 'wait_reason', c.wait_reason)
  FROM j c)
SELECT j.id FROM j;

-- name: Attention :execrows
UPDATE jobs SET state = 'needs_attention', holder = NULL, cancellable = false, wait_reason = @reason,
  error_code = 'needs_attention', error_message = @message::text
WHERE id = @id AND holder = @holder::uuid AND fence = @fence;

-- name: CancelRequests :many
SELECT id FROM jobs WHERE id = ANY(@ids::uuid[]) AND cancel_requested;

-- name: CancelJob :execrows
UPDATE jobs SET cancel_requested = true, wakes = wakes + 1, wake_at = CASE WHEN holder IS NULL THEN now() ELSE wake_at END
WHERE id = @id AND (cancel_requested OR cancellable) AND state IN ('queued', 'running', 'waiting', 'unwinding');

-- name: JobState :one
SELECT state, kind FROM jobs WHERE id = @id;

-- name: RetryJob :execrows
UPDATE jobs SET wake_at = now(), wait_reason = '', error_code = unwind_code, error_message = unwind_message,
  state = (CASE WHEN unwind_code IS NULL THEN 'waiting' ELSE 'unwinding' END)::job_state
WHERE id = @id AND state = 'needs_attention';

-- name: ResetFailures :exec
UPDATE job_steps SET failures = 0 WHERE job_id = @job_id;

-- name: WakeJobs :many
-- A parked job becomes due; one that runs takes note.
UPDATE jobs SET wakes = wakes + 1,
  wake_at = CASE WHEN holder IS NULL THEN least(wake_at, now()) ELSE wake_at END
WHERE state IN ('running', 'waiting', 'unwinding')
  AND (sqlc.narg('jobs')::uuid[] IS NULL OR id = ANY(sqlc.narg('jobs')::uuid[]))
  AND (sqlc.narg('targets')::uuid[] IS NULL OR target_id = ANY(sqlc.narg('targets')::uuid[]))
  AND (@kind::text = '' OR kind = @kind)
  AND (@target_kind::text = '' OR target_kind = @target_kind)
  AND (@reason::text = '' OR wait_reason = @reason)
RETURNING id;

-- name: SupersedeJob :execrows
UPDATE jobs SET state = 'cancelled', holder = NULL, finished_at = now(), cancellable = false, wait_reason = '',
  unwind_code = 'cancelled', unwind_message = @message::text, error_code = 'cancelled', error_message = @message::text
WHERE id = @id AND state NOT IN ('succeeded', 'failed', 'cancelled');

-- name: RaiseFence :exec
UPDATE jobs SET fence = greatest(fence, @attempt::bigint) WHERE id = @id;
