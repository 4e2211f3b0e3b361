-- name: RecoveryGet :one
SELECT cause, reason, since, restored_at, backup_of, plan, confirmed_at, confirmed_by FROM recovery;

-- name: RecoveryLock :one
SELECT plan FROM recovery FOR UPDATE;

-- name: RecoveryNodes :many
SELECT h.node_id, n.name, h.cause, h.reason, h.since, h.misbehaved FROM recovery_nodes h JOIN nodes n ON n.id = h.node_id
WHERE n.state <> 'removed' ORDER BY n.name;

-- name: RecoveryHoldNode :execrows
INSERT INTO recovery_nodes (node_id, cause, reason) SELECT n.id, @cause, @reason FROM nodes n
WHERE n.id = @node_id AND n.state <> 'removed'
-- one in quarantine is held for this, too, when it is released from there
ON CONFLICT (node_id) DO UPDATE SET cause = EXCLUDED.cause, reason = EXCLUDED.reason WHERE recovery_nodes.cause = 'misbehaved';

-- name: NodeQuarantine :execrows
INSERT INTO recovery_nodes (node_id, cause, reason, misbehaved) SELECT n.id, 'misbehaved', @what::text, @what FROM nodes n
WHERE n.id = @node_id AND n.state <> 'removed'
ON CONFLICT (node_id) DO UPDATE SET misbehaved = EXCLUDED.misbehaved WHERE recovery_nodes.misbehaved = '';

-- name: NodeQuarantined :one
SELECT coalesce((SELECT r.misbehaved FROM recovery_nodes r WHERE r.node_id = @node_id), '')::text AS misbehaved;

-- name: NodeUnquarantine :execrows
-- Ends a quarantine; who is held for another reason stays so.
WITH kept AS (UPDATE recovery_nodes k SET misbehaved = '' WHERE k.node_id = @node_id AND k.cause <> 'misbehaved' AND k.misbehaved <> '' RETURNING k.node_id),
gone AS (DELETE FROM recovery_nodes g WHERE g.node_id = @node_id AND g.cause = 'misbehaved' RETURNING g.node_id)
SELECT kept.node_id FROM kept UNION ALL SELECT gone.node_id FROM gone;

-- name: RecoveryShare :one
-- How many nodes are ahead of the database, of how many that have ever reported.
SELECT count(*) AS nodes, count(h.node_id) FILTER (WHERE h.cause = 'ahead') AS ahead
FROM nodes n LEFT JOIN recovery_nodes h ON h.node_id = n.id
WHERE n.state <> 'removed' AND n.node_epoch > 0;

-- name: RecoveryHoldAll :execrows
UPDATE recovery SET cause = @cause::text, reason = @reason, since = now() WHERE cause IS NULL;

-- name: RecoveryConfirm :exec
UPDATE recovery SET cause = NULL, reason = '', since = NULL, plan = @plan, confirmed_at = now(), confirmed_by = @by;

-- name: RecoveryRelease :exec
DELETE FROM recovery_nodes WHERE node_id = ANY(@nodes::uuid[]);

-- name: RecoveryLeft :many
SELECT vm_id, node_id, name, left_by, left_at FROM recovery_left ORDER BY name, vm_id;

-- name: RecoveryLeave :exec
INSERT INTO recovery_left (vm_id, node_id, name, left_by) VALUES (@vm_id, @node_id, @name, @left_by)
ON CONFLICT (vm_id, node_id) DO NOTHING;

-- name: RecoveryForget :exec
DELETE FROM recovery_left WHERE vm_id = @vm_id;

-- name: ClusterFollow :execrows
-- A restored cluster takes in nodes of the one it follows on.
UPDATE cluster SET predecessors = array_append(predecessors, @incarnation::uuid)
WHERE incarnation <> @incarnation::uuid AND NOT @incarnation::uuid = ANY(predecessors);

-- name: ClusterFollows :one
SELECT predecessors FROM cluster;

-- name: JobsOpen :many
SELECT id, kind, target_kind, target_id, target_name, op_seq, created_at FROM jobs
WHERE state IN ('queued', 'running', 'waiting', 'unwinding', 'needs_attention') ORDER BY id;

-- name: VMAdopt :exec
UPDATE vms SET owner_epoch = greatest(owner_epoch, @owner_epoch), op_seq = greatest(op_seq, @op_seq), power = @power,
  node_id = @node_id::uuid, reserved = @reserved, cpus = @cpus, memory_bytes = @memory_bytes,
  machine_type = @machine_type, cpu_model = @cpu_model, firmware = @firmware, placement = NULL,
  failure_code = NULL, failure_message = NULL, failed_at = NULL, deleting = false
WHERE id = @id;

-- name: VMRecreate :exec
INSERT INTO vms (id, project_id, name, cpus, memory_bytes, machine_type, cpu_model, firmware, image_id, seed_image_id, cdrom_image_id, power, node_id, owner_epoch, op_seq, reserved)
VALUES (@id, @project_id, @name, @cpus, @memory_bytes, @machine_type, @cpu_model, @firmware, @image_id, @seed_image_id, @cdrom_image_id, @power, @node_id, @owner_epoch, @op_seq, @reserved);

-- name: VMMiss :exec
UPDATE vms SET node_id = NULL, reserved = false, power = 'off', owner_epoch = greatest(owner_epoch, @owner_epoch) + 1,
  op_seq = greatest(op_seq, @op_seq), lost_node_id = @node_id, lost_at = now(), lost_reason = @reason, deleting = false
WHERE id = @id;

-- name: InstancePut :exec
INSERT INTO instances AS t (vm_id, owner_epoch, node_id, node_epoch, report_seq, phase, reason, since)
VALUES (@vm_id, @owner_epoch, @node_id, @node_epoch, @report_seq, @phase, @reason, @since)
ON CONFLICT (vm_id, owner_epoch) DO UPDATE SET node_id = EXCLUDED.node_id, node_epoch = EXCLUDED.node_epoch,
  report_seq = EXCLUDED.report_seq, phase = EXCLUDED.phase, reason = EXCLUDED.reason, since = EXCLUDED.since,
  addresses = '{}', frozen_until = NULL, frozen_why = '', updated_at = now() -- the node tells them again
WHERE t.report_seq < EXCLUDED.report_seq;

-- name: VMLetGoOf :exec
-- Ends a job's hold on whatever it holds.
UPDATE vms SET job_id = NULL WHERE job_id = @job_id;

-- name: NodesRecount :exec
-- What nodes count is made anew from their VMs. They are locked.
UPDATE nodes n SET used_cpus = coalesce(v.cpus, 0) + coalesce(h.cpus, 0), used_memory_bytes = coalesce(v.mem, 0) + coalesce(h.mem, 0), used_disk_bytes = coalesce(d.bytes, 0) + coalesce(h.bytes, 0)
FROM nodes m
LEFT JOIN (SELECT node_id, sum(cpus)::int AS cpus, sum(memory_bytes)::bigint AS mem FROM vms WHERE reserved GROUP BY node_id) v ON v.node_id = m.id
LEFT JOIN (SELECT vms.node_id, sum(s.size_bytes)::bigint AS bytes FROM vms JOIN storage_volumes s ON s.vm_id = vms.id AND s.pool_id IS NULL GROUP BY vms.node_id) d ON d.node_id = m.id
LEFT JOIN (SELECT held_node_id, sum(held_disk_bytes)::bigint AS bytes, sum(held_cpus)::int AS cpus, sum(held_memory_bytes)::bigint AS mem FROM migrations WHERE held_node_id IS NOT NULL GROUP BY held_node_id) h ON h.held_node_id = m.id
WHERE n.id = m.id AND n.id = ANY(@nodes::uuid[]);

-- name: NodesLock :many
SELECT id FROM nodes WHERE id = ANY(@nodes::uuid[]) AND state <> 'removed' ORDER BY id FOR UPDATE;

-- name: MACsTaken :many
SELECT mac::text FROM network_interfaces;

-- name: VMFences :many
SELECT id, name, node_id, owner_epoch, op_seq FROM vms WHERE id = ANY(@vms::uuid[]);

-- name: NodeRecreate :execrows
INSERT INTO nodes (id, name, state, simulated, key_hash) VALUES (@id, @name, 'cordoned', @simulated, @key_hash)
ON CONFLICT DO NOTHING;
