-- name: DrainInsert :exec
INSERT INTO drains (id, node_id, kind, policy, parallel, grace_ms, partial, reason, created_by, request_id)
VALUES (@id, @node_id, @kind, @policy, @parallel, @grace_ms, @partial, @reason, @created_by, @request_id);

-- name: DrainItemInsert :exec
INSERT INTO drain_vms (drain_id, vm_id, vm_name, position, action, runs, target_node_id, state, why, finished_at)
VALUES (@drain_id, @vm_id, @vm_name, @position, @action, @runs, sqlc.narg(target_node_id), @state, @why,
  CASE WHEN @state = 'left' THEN now() END)
ON CONFLICT (drain_id, vm_id) DO NOTHING;

-- name: DrainRunning :one
-- The one that is under way on a node.
SELECT id, kind FROM drains WHERE node_id = @node_id AND state = 'running';

-- name: DrainLast :one
SELECT id FROM drains WHERE node_id = @node_id ORDER BY id DESC LIMIT 1;

-- name: DrainGet :one
SELECT d.id, d.node_id, n.name AS node_name, d.kind, d.state, d.policy, d.parallel, d.grace_ms, d.partial, d.reason,
  d.created_by, d.request_id, d.created_at, d.finished_at
FROM drains d JOIN nodes n ON n.id = d.node_id WHERE d.id = @id;

-- name: DrainItems :many
SELECT i.vm_id, i.vm_name, i.action, i.runs, i.target_node_id, coalesce(t.name, '')::text AS target_name, i.state, i.stage, i.job_id, i.why,
  i.started_at, i.finished_at, coalesce(j.state::text, '')::text AS job_state, coalesce(j.error_message, '')::text AS job_error
FROM drain_vms i LEFT JOIN nodes t ON t.id = i.target_node_id LEFT JOIN jobs j ON j.id = i.job_id
WHERE i.drain_id = @drain_id ORDER BY i.position, i.vm_id;

-- name: DrainItemLock :one
SELECT i.state, i.stage FROM drain_vms i JOIN drains d ON d.id = i.drain_id
WHERE i.drain_id = @drain_id AND i.vm_id = @vm_id AND d.state = 'running' FOR UPDATE OF i;

-- name: DrainItemPut :exec
UPDATE drain_vms SET state = @state, stage = @stage, job_id = sqlc.narg(job_id), action = @action, runs = @runs,
  target_node_id = sqlc.narg(target_node_id), why = @why,
  started_at = CASE WHEN @state = 'queued' THEN NULL ELSE coalesce(started_at, now()) END,
  finished_at = CASE WHEN @state IN ('done', 'failed', 'left') THEN now() END
WHERE drain_id = @drain_id AND vm_id = @vm_id;

-- name: DrainEnd :exec
UPDATE drains SET state = @state, finished_at = now() WHERE id = @id AND state = 'running';

-- name: DrainLeave :exec
-- What did not begin does not any more.
UPDATE drain_vms SET state = 'left', why = @why, finished_at = now() WHERE drain_id = @drain_id AND state = 'queued';

-- name: DrainTook :many
-- What drains took from a node since it was last given back what they had.
SELECT DISTINCT ON (i.vm_id) i.vm_id, i.vm_name, i.action, i.runs, i.target_node_id
FROM drain_vms i JOIN drains d ON d.id = i.drain_id
WHERE d.node_id = @node_id AND d.kind = 'drain' AND i.state = 'done'
  AND NOT EXISTS (SELECT FROM drains r WHERE r.node_id = d.node_id AND r.kind = 'return' AND r.state = 'succeeded' AND r.id > d.id)
ORDER BY i.vm_id, d.id DESC;
