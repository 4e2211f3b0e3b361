-- name: RelayGrant :exec
INSERT INTO relay_grants (ticket_hash, from_node_id, to_node_id, job_id)
VALUES (@ticket_hash, @from_node_id, @to_node_id, @job_id) ON CONFLICT DO NOTHING;

-- name: RelayGrantSweep :exec
DELETE FROM relay_grants g USING jobs j WHERE j.id = g.job_id AND j.finished_at IS NOT NULL;

-- name: RelayGranted :one
SELECT EXISTS (SELECT FROM relay_grants g JOIN jobs j ON j.id = g.job_id
  WHERE g.ticket_hash = @ticket_hash AND g.from_node_id = @from_node_id AND g.to_node_id = @to_node_id AND j.finished_at IS NULL)::boolean AS granted;

-- name: MigrationRelayed :exec
-- That a server carries it; an event where nobody knew.
WITH changed AS (
  UPDATE migrations m SET relayed = true WHERE m.id = @id AND m.state = 'running' AND NOT m.relayed
  RETURNING m.id, m.project_id, m.vm_name)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
SELECT c.project_id, 'migration.updated', 'migration', c.id, c.vm_name, c.id FROM changed c;
