-- name: EventInsert :exec
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: AuditInsert :exec
INSERT INTO audit_log (principal, role, origin, action, object_kind, object_id, object_name, project_id, job_id, outcome, request_id, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: IdempotencyGet :one
SELECT request_hash, status, response FROM idempotency_keys WHERE principal = $1 AND key = $2;

-- name: IdempotencyPut :execrows
INSERT INTO idempotency_keys (principal, key, request_hash, status, response) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (principal, key) DO NOTHING;

-- name: IdempotencySweep :execrows
DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours';

-- name: JobSteps :many
SELECT position, name, state, error_message AS error, started_at, finished_at FROM job_steps WHERE job_id = $1 ORDER BY position;

-- name: JobHolderOf :one
SELECT job_id FROM vms WHERE id = $1;
