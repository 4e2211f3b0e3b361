-- name: MigrationInsert :exec
INSERT INTO migrations (id, project_id, vm_id, vm_name, kind, reason, source_node_id, target_node_id, source_epoch,
  held_node_id, held_disk_bytes, prediction, phases, created_by)
VALUES (@id, @project_id, @vm_id, @vm_name, @kind, @reason, @source_node_id, @target_node_id, @source_epoch,
  @target_node_id, @held_disk_bytes, @prediction, jsonb_build_array(jsonb_build_object('name', 'accepted', 'at', now())), @created_by);

-- name: VMSwap :one
-- The owner changes, if it is still the one that was copied, as it was copied.
UPDATE vms SET node_id = @to_node, owner_epoch = owner_epoch + 1
WHERE id = @id AND node_id = @from_node AND owner_epoch = @epoch AND job_id = @job_id AND NOT reserved
RETURNING owner_epoch;

-- name: MigrationSwap :exec
-- What is held is on the other node from now on. Back again, it is as before the swap,
-- one epoch later.
UPDATE migrations SET held_node_id = CASE WHEN held_node_id IS NULL THEN NULL ELSE @held_node_id::uuid END,
  source_epoch = CASE WHEN @back::boolean THEN @epoch ELSE source_epoch END,
  swapped_epoch = CASE WHEN @back::boolean THEN NULL ELSE @epoch::bigint END,
  phases = phases || jsonb_build_array(jsonb_build_object('name', @phase::text, 'at', now()))
WHERE id = @id;

-- name: MigrationPhase :exec
-- Begins a phase, unless it has begun; bytes are what was moved so far.
UPDATE migrations SET bytes_moved = greatest(bytes_moved, @bytes),
  phases = CASE WHEN phases @> jsonb_build_array(jsonb_build_object('name', @phase::text)) THEN phases
    ELSE phases || jsonb_build_array(jsonb_build_object('name', @phase::text, 'at', now())) END
WHERE id = @id AND state = 'running';

-- name: MigrationEnd :one
-- Gives what it held, and where.
WITH old AS (SELECT o.id, o.held_node_id, o.held_disk_bytes FROM migrations o WHERE o.id = @id AND o.state = 'running' FOR UPDATE)
UPDATE migrations m SET state = @state, held_node_id = NULL, held_disk_bytes = 0, finished_at = now(),
  failure_code = sqlc.narg(failure_code), failure_message = sqlc.narg(failure_message)
FROM old WHERE m.id = old.id
RETURNING old.held_node_id, old.held_disk_bytes;

-- name: MigrationsLose :exec
-- A node is gone, and with it what was held on it.
UPDATE migrations SET held_node_id = NULL, held_disk_bytes = 0 WHERE held_node_id = @node_id::uuid;

-- name: MigrationsOf :many
-- VMs that are on their way from a node or to it.
SELECT DISTINCT vm_id FROM migrations WHERE state = 'running' AND (source_node_id = @node_id::uuid OR target_node_id = @node_id::uuid);

-- name: VMRegain :one
-- A VM whose new node was removed by force is where it was: everything is there still, and
-- what its migration held there is the VM's again.
WITH regained AS (
  UPDATE vms v SET node_id = @source::uuid, owner_epoch = v.owner_epoch + 1, lost_node_id = NULL, lost_at = NULL, lost_reason = ''
  WHERE v.id = @id AND v.job_id = @job_id::uuid AND v.node_id IS NULL AND v.lost_node_id = @target::uuid
    AND EXISTS (SELECT FROM nodes n WHERE n.id = @source::uuid AND n.state <> 'removed')
  RETURNING v.owner_epoch),
freed AS (
  UPDATE migrations m SET held_node_id = NULL, held_disk_bytes = 0, source_epoch = r.owner_epoch, swapped_epoch = NULL,
    phases = m.phases || jsonb_build_array(jsonb_build_object('name', @phase::text, 'at', now()))
  FROM regained r WHERE m.id = @job_id::uuid AND m.held_node_id = @source::uuid)
SELECT r.owner_epoch FROM regained r;
