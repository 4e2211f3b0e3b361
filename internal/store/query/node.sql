-- name: NodeInsert :exec
INSERT INTO nodes (id, name, simulated, key_hash, certificate_expires_at) VALUES ($1, $2, $3, $4, $5);

-- name: NodeRenewed :one
UPDATE nodes SET certificate_expires_at = @expires_at
WHERE id = @id AND state <> 'removed' AND key_hash = @key_hash
RETURNING id, name;

-- name: NodeHello :one
-- A hello under an older incarnation is refused: the row is not touched.
UPDATE nodes SET node_epoch = @node_epoch, agent_version = @agent_version, inventory = @inventory,
  cpus = @cpus, memory_bytes = @memory_bytes, disk_bytes = @disk_bytes
WHERE id = @id AND state <> 'removed' AND node_epoch <= @node_epoch AND key_hash = @key_hash
RETURNING id, name;

-- name: NodeEpoch :one
SELECT node_epoch, state, key_hash FROM nodes WHERE id = $1;

-- name: NodeBeats :execrows
-- Rows are locked in one order, so that the batches of two servers never wait
-- for each other in a circle.
WITH locked AS (SELECT l.id FROM nodes l WHERE l.id = ANY(@ids::uuid[]) ORDER BY l.id FOR NO KEY UPDATE)
UPDATE nodes n SET lease_seq = b.seq, seen_at = now()
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@seqs::bigint[]) AS seq) b, locked
WHERE n.id = b.id AND n.id = locked.id AND n.lease_seq < b.seq AND n.state <> 'removed';

-- name: NodeLeases :many
SELECT id, lease_seq FROM nodes WHERE state <> 'removed';

-- name: NodeSetState :execrows
UPDATE nodes SET state = @state WHERE id = @id AND state <> 'removed'
  AND (sqlc.narg(revision)::bigint IS NULL OR revision = sqlc.narg(revision));

-- name: NodeLock :one
SELECT id, state FROM nodes WHERE id = $1 FOR UPDATE;

-- name: NodeReserve :execrows
-- The check and the reservation are one statement, so that two servers never
-- both give the last byte away.
UPDATE nodes SET used_cpus = used_cpus + @cpus, used_memory_bytes = used_memory_bytes + @memory_bytes,
  used_disk_bytes = used_disk_bytes + @disk_bytes
WHERE id = @id AND state <> 'removed' AND (state = 'active' OR NOT @new_vm::boolean)
  AND used_cpus + @cpus <= cpus
  AND used_memory_bytes + @memory_bytes <= memory_bytes
  AND used_disk_bytes + @disk_bytes <= disk_bytes;

-- name: NodeRelease :exec
UPDATE nodes SET used_cpus = used_cpus - @cpus, used_memory_bytes = used_memory_bytes - @memory_bytes,
  used_disk_bytes = used_disk_bytes - @disk_bytes
WHERE id = @id;

-- name: NodeUsageDrift :many
-- What is counted against what VMs really reserve: must be empty.
SELECT n.id, n.name, n.used_cpus, n.used_memory_bytes, n.used_disk_bytes,
  (coalesce(v.cpus, 0) + coalesce(m.cpus, 0))::int AS real_cpus, (coalesce(v.mem, 0) + coalesce(m.mem, 0))::bigint AS real_memory, (coalesce(d.bytes, 0) + coalesce(m.bytes, 0))::bigint AS real_disk
FROM nodes n
LEFT JOIN (SELECT node_id, sum(cpus) AS cpus, sum(memory_bytes) AS mem FROM vms WHERE reserved GROUP BY node_id) v ON v.node_id = n.id
LEFT JOIN (SELECT vms.node_id, sum(s.size_bytes) AS bytes FROM vms JOIN storage_volumes s ON s.vm_id = vms.id AND s.pool_id IS NULL GROUP BY vms.node_id) d ON d.node_id = n.id
LEFT JOIN (SELECT held_node_id, sum(held_disk_bytes) AS bytes, sum(held_cpus) AS cpus, sum(held_memory_bytes) AS mem FROM migrations WHERE held_node_id IS NOT NULL GROUP BY held_node_id) m ON m.held_node_id = n.id
WHERE n.used_cpus <> coalesce(v.cpus, 0) + coalesce(m.cpus, 0) OR n.used_memory_bytes <> coalesce(v.mem, 0) + coalesce(m.mem, 0)
  OR n.used_disk_bytes <> coalesce(d.bytes, 0) + coalesce(m.bytes, 0);

-- name: NodePoolsDrop :exec
DELETE FROM node_pools WHERE node_id = $1;

-- name: NodeRemoveByForce :execrows
-- Its VMs have lost their placement in the same transaction, so nothing is taken
-- of it any more.
UPDATE nodes SET state = 'removed', used_cpus = 0, used_memory_bytes = 0, used_disk_bytes = 0
WHERE id = @id AND state <> 'removed'
  AND (sqlc.narg(revision)::bigint IS NULL OR revision = sqlc.narg(revision));

-- name: NodeSetShutdown :execrows
UPDATE nodes SET shutdown_policy = @policy WHERE id = @id AND state <> 'removed'
  AND (sqlc.narg(revision)::bigint IS NULL OR revision = sqlc.narg(revision));

-- name: NodePlans :many
-- What each node is to do when its host starts and shuts down; of its VMs, those
-- that are not as all others.
SELECT n.id, n.shutdown_policy, n.plan_told,
  coalesce((SELECT jsonb_agg(jsonb_build_object('vm', v.id, 'by_hand', NOT v.autostart, 'order', v.start_order, 'delay_seconds', v.start_delay_s) ORDER BY v.id)
    FROM vms v WHERE v.node_id = n.id AND (NOT v.autostart OR v.start_order <> 0 OR v.start_delay_s <> 0)), '[]')::jsonb AS vms
FROM nodes n WHERE n.state <> 'removed' AND n.id = ANY(@nodes::uuid[]) ORDER BY n.id;

-- name: NodePlanNumber :one
UPDATE nodes SET plan_seq = plan_seq + 1 WHERE id = $1 RETURNING plan_seq;

-- name: NodePlanTold :exec
-- What a later plan has replaced is not what the node has.
UPDATE nodes SET plan_told = @digest WHERE id = @id AND plan_seq = @seq;

-- name: NodePlanHas :exec
UPDATE nodes SET plan_told = @digest WHERE id = @id AND plan_told <> @digest;

-- name: NodeSetMigrations :execrows
UPDATE nodes SET migrations_out = @most_out, migrations_in = @most_in, migration_bytes_per_second = @bytes_per_second WHERE id = @id AND state <> 'removed'
  AND (sqlc.narg(revision)::bigint IS NULL OR revision = sqlc.narg(revision));
