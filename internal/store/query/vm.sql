-- name: VMInsert :exec
INSERT INTO vms (id, project_id, name, labels, cpus, memory_bytes, image_id, cloud_init, seed_image_id, cdrom_image_id, protected, restart_policy,
  autostart, start_order, start_delay_s, drain_policy, cpu_weight, cpu_cap_percent, power, op_seq, job_id, machine_type, cpu_model, firmware)
VALUES (@id, @project_id, @name, @labels, @cpus, @memory_bytes, @image_id, @cloud_init, @seed_image_id, @cdrom_image_id, @protected, @restart_policy,
  @autostart, @start_order, @start_delay_s, @drain_policy, @cpu_weight, @cpu_cap_percent, @power, 1, @job_id, @machine_type, @cpu_model, @firmware);

-- name: VolumeInsert :exec
INSERT INTO storage_volumes (id, project_id, vm_id, slot, size_bytes, image_id, pool_id, iops, read_iops, write_iops, bytes_s, read_bytes_s, write_bytes_s)
VALUES (@id, @project_id, @vm_id, @slot, @size_bytes, @image_id, @pool_id, @iops, @read_iops, @write_iops, @bytes_s, @read_bytes_s, @write_bytes_s);

-- name: VolumeResize :one
-- Gives the size it had.
WITH old AS (SELECT o.id, o.size_bytes FROM storage_volumes o WHERE o.id = @id AND o.vm_id = @vm_id FOR UPDATE)
UPDATE storage_volumes s SET size_bytes = @size_bytes FROM old WHERE s.id = old.id
RETURNING old.size_bytes, s.pool_id;

-- name: VolumeLimit :execrows
UPDATE storage_volumes SET iops = @iops, read_iops = @read_iops, write_iops = @write_iops,
  bytes_s = @bytes_s, read_bytes_s = @read_bytes_s, write_bytes_s = @write_bytes_s
WHERE id = @id AND vm_id = @vm_id;

-- name: VMLimit :exec
UPDATE vms SET cpu_weight = @cpu_weight, cpu_cap_percent = @cpu_cap_percent WHERE id = @id;

-- name: VMCDROM :exec
UPDATE vms SET cdrom_image_id = sqlc.narg(cdrom_image_id) WHERE id = @id;

-- name: VolumeDelete :one
DELETE FROM storage_volumes WHERE id = @id AND vm_id = @vm_id RETURNING size_bytes, pool_id;

-- name: NICInsert :exec
INSERT INTO network_interfaces (id, vm_id, slot, mac, bridge, forwards)
VALUES (@id, @vm_id, @slot, (@mac::text)::macaddr, @bridge, @forwards);

-- name: MACsFree :many
SELECT d.mac::text FROM unnest(@drawn::text[]) WITH ORDINALITY AS d (mac, place)
WHERE NOT EXISTS (SELECT 1 FROM network_interfaces n WHERE n.mac = d.mac::macaddr)
ORDER BY d.place;

-- name: VMLock :one
-- By id, else by name. What refers to the row, as reports do, does not wait for
-- this lock.
SELECT v.id, now()::timestamptz AS at FROM vms v WHERE v.project_id = @project_id
  AND v.id = coalesce(sqlc.narg(id)::uuid, (SELECT n.id FROM vms n WHERE n.project_id = @project_id AND n.name = @name))
  AND (sqlc.narg(id)::uuid IS NOT NULL OR v.name = @name)
FOR NO KEY UPDATE OF v;

-- name: VMHold :one
-- Takes the VM for a job; nothing is returned when another job holds it.
WITH held AS (
  UPDATE vms v SET job_id = @job_id, op_seq = op_seq + 1 WHERE v.id = @id AND v.job_id IS NULL
  RETURNING v.id, v.project_id, v.name, v.op_seq),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
  SELECT h.project_id, 'vm.updated', 'vm', h.id, h.name, @job_id FROM held h)
SELECT h.op_seq FROM held h;

-- name: VMFree :exec
WITH freed AS (
  UPDATE vms v SET job_id = NULL, failure_code = sqlc.narg(code), failure_message = sqlc.narg(message),
    failed_at = CASE WHEN sqlc.narg(code)::text IS NULL THEN NULL ELSE now() END
  WHERE v.id = @id AND v.job_id = @job_id
  RETURNING v.id, v.project_id, v.name)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
SELECT f.project_id, 'vm.updated', 'vm', f.id, f.name, @job_id FROM freed f;

-- name: VMFreeAll :exec
-- VMFree for jobs that have succeeded.
WITH freed AS (
  UPDATE vms v SET job_id = NULL, failure_code = NULL, failure_message = NULL, failed_at = NULL
  FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@jobs::uuid[]) AS job) i
  WHERE v.id = i.id AND v.job_id = i.job
  RETURNING v.id, v.project_id, v.name, i.job)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
SELECT f.project_id, 'vm.updated', 'vm', f.id, f.name, f.job FROM freed f;

-- name: VMLetGo :exec
-- Ends a job's hold and leaves all else as it is.
UPDATE vms SET job_id = NULL WHERE id = @id AND job_id = @job_id;

-- name: VMPlace :execrows
-- Its board becomes the newest version that the node has, unless it is one already.
UPDATE vms v SET node_id = @node_id, reserved = true, placement = NULL,
  machine_type = CASE WHEN v.machine_type <> 'q35' THEN v.machine_type ELSE coalesce((
    SELECT t.type FROM nodes m, jsonb_array_elements_text(m.inventory->'machine_types') WITH ORDINALITY AS t(type, place)
    WHERE m.id = @node_id AND t.type ~ '^pc-q35-[0-9.]+$' ORDER BY t.place LIMIT 1), 'q35') END
WHERE v.id = @id AND v.node_id IS NULL;

-- name: VMSettle :execrows
-- Puts a VM on a node that it does not run on yet.
UPDATE vms SET node_id = @node_id WHERE id = @id AND node_id IS NULL AND NOT reserved;

-- name: VMUnplace :one
-- Gives what the VM took of its node. The epoch stays: it never falls.
WITH old AS (SELECT o.id, o.node_id, o.reserved FROM vms o WHERE o.id = @id AND o.node_id IS NOT NULL FOR NO KEY UPDATE)
UPDATE vms v SET node_id = NULL, reserved = false FROM old WHERE v.id = old.id
RETURNING old.node_id::uuid AS node_id, (CASE WHEN old.reserved THEN v.cpus ELSE 0 END)::int AS cpus,
  (CASE WHEN old.reserved THEN v.memory_bytes ELSE 0 END)::bigint AS memory_bytes,
  (SELECT coalesce(sum(s.size_bytes), 0) FROM storage_volumes s WHERE s.vm_id = v.id AND s.pool_id IS NULL)::bigint AS disk_bytes;

-- name: VMExplain :exec
UPDATE vms SET placement = $2 WHERE id = $1 AND node_id IS NULL AND placement IS DISTINCT FROM $2;

-- name: VMUnreserve :one
UPDATE vms SET reserved = false WHERE id = @id AND reserved
RETURNING node_id::uuid AS node_id, cpus, memory_bytes;

-- name: VMSetPower :exec
UPDATE vms SET power = $2 WHERE id = $1 AND power <> $2;

-- name: VMRaiseEpoch :one
UPDATE vms SET owner_epoch = owner_epoch + 1 WHERE id = $1 AND node_id IS NOT NULL RETURNING owner_epoch;

-- name: VMAdmit :one
-- A new incarnation on the VM's node: its CPU and memory are counted there unless
-- they are, it is wanted on, its epoch rises. No row when it has no node, or that
-- no room. A board of no version becomes the newest that the node has. With a job the
-- VM is taken for that too, as VMHold does: one change of the row is cheaper than two.
WITH old AS (
  SELECT o.id, o.node_id, o.reserved, o.cpus, o.memory_bytes FROM vms o
  WHERE o.id = @id AND o.node_id IS NOT NULL AND (sqlc.narg(hold)::uuid IS NULL OR o.job_id IS NULL) FOR NO KEY UPDATE),
room AS (
  UPDATE nodes n SET used_cpus = n.used_cpus + old.cpus, used_memory_bytes = n.used_memory_bytes + old.memory_bytes
  FROM old WHERE n.id = old.node_id AND NOT old.reserved AND n.state <> 'removed'
    AND n.used_cpus + old.cpus <= n.cpus AND n.used_memory_bytes + old.memory_bytes <= n.memory_bytes
  RETURNING n.id),
admitted AS (
  UPDATE vms v SET reserved = true, power = 'on', owner_epoch = v.owner_epoch + 1,
    job_id = coalesce(sqlc.narg(hold)::uuid, v.job_id), op_seq = v.op_seq + (sqlc.narg(hold)::uuid IS NOT NULL)::int,
    machine_type = CASE WHEN v.machine_type <> 'q35' THEN v.machine_type ELSE coalesce((
      SELECT t.type FROM nodes m, jsonb_array_elements_text(m.inventory->'machine_types') WITH ORDINALITY AS t(type, place)
      WHERE m.id = old.node_id AND t.type ~ '^pc-q35-[0-9.]+$' ORDER BY t.place LIMIT 1), 'q35') END
  FROM old WHERE v.id = old.id AND (old.reserved OR EXISTS (SELECT FROM room))
  RETURNING v.id, v.project_id, v.name, v.owner_epoch, v.machine_type),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
  SELECT a.project_id, 'vm.updated', 'vm', a.id, a.name, sqlc.narg(hold)::uuid FROM admitted a WHERE sqlc.narg(hold)::uuid IS NOT NULL)
SELECT a.owner_epoch, a.machine_type FROM admitted a;

-- name: VMSetDeleting :exec
UPDATE vms SET deleting = true WHERE id = $1 AND NOT deleting;

-- name: VMDelete :execrows
DELETE FROM vms WHERE id = $1;

-- name: VMUpdate :execrows
UPDATE vms SET name = @name, labels = @labels, cpus = @cpus, memory_bytes = @memory_bytes, cloud_init = @cloud_init,
  machine_type = @machine_type, cpu_model = @cpu_model, firmware = @firmware,
  seed_image_id = sqlc.narg(seed_image_id), protected = @protected, restart_policy = @restart_policy,
  autostart = @autostart, start_order = @start_order, start_delay_s = @start_delay_s, drain_policy = @drain_policy,
  cpu_weight = @cpu_weight, cpu_cap_percent = @cpu_cap_percent
WHERE id = @id AND revision = @revision;

-- name: ReportsApply :many
-- Reports of nodes. A row changes only when the VM is placed on that node, the report
-- is of that very owner epoch and newer than what is stored. One of a later epoch
-- shows that the database is older than the node, or that the node lies: as an
-- observation it counts, and it is told as such. Relaxed: the commit does not wait
-- for the disk, since what follows does.
WITH input AS (
  SELECT unnest(@node_ids::uuid[]) AS node_id, unnest(@node_epochs::bigint[]) AS node_epoch,
    unnest(@vm_ids::uuid[]) AS vm_id, unnest(@epochs::bigint[]) AS owner_epoch,
    unnest(@seqs::bigint[]) AS report_seq, unnest(@phases::text[])::vm_phase AS phase,
    unnest(@reasons::text[]) AS reason, unnest(@sinces::timestamptz[]) AS since,
    unnest(@addresses::text[])::inet[] AS addresses, -- each an array's own text
    nullif(unnest(@frozen_untils::timestamptz[]), 'epoch') AS frozen_until, unnest(@frozen_whys::text[]) AS frozen_why
), placed AS (
  SELECT i.*, v.project_id, v.name, v.job_id, v.owner_epoch AS current
  FROM input i JOIN vms v ON v.id = i.vm_id AND v.node_id = i.node_id
), written AS (
  INSERT INTO instances AS t (vm_id, owner_epoch, node_id, node_epoch, report_seq, phase, reason, since, addresses, frozen_until, frozen_why)
  SELECT vm_id, owner_epoch, node_id, node_epoch, report_seq, phase, reason, since, addresses, frozen_until, frozen_why
  FROM placed WHERE owner_epoch >= current AND owner_epoch < 1099511627776 -- none that cannot be true
  ORDER BY vm_id -- batches that overlap take their locks in one order
  ON CONFLICT (vm_id, owner_epoch) DO UPDATE SET node_id = EXCLUDED.node_id, node_epoch = EXCLUDED.node_epoch,
    report_seq = EXCLUDED.report_seq, phase = EXCLUDED.phase, reason = EXCLUDED.reason,
    since = EXCLUDED.since, addresses = EXCLUDED.addresses, frozen_until = EXCLUDED.frozen_until, frozen_why = EXCLUDED.frozen_why, updated_at = now()
  WHERE t.report_seq < EXCLUDED.report_seq
  RETURNING t.vm_id, t.owner_epoch
), forgotten AS ( -- only the newest incarnation is kept
  DELETE FROM instances o USING written w WHERE o.vm_id = w.vm_id AND o.owner_epoch < w.owner_epoch
), told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id, data)
  SELECT p.project_id, 'vm.updated', 'vm', p.vm_id, p.name, p.job_id, jsonb_build_object('phase', p.phase, 'reason', p.reason)
  FROM placed p JOIN written w ON w.vm_id = p.vm_id AND w.owner_epoch = p.owner_epoch
  RETURNING id
)
SELECT i.node_id::uuid AS node_id, i.vm_id::uuid AS vm_id, i.owner_epoch::bigint AS owner_epoch, CASE
    WHEN p.owner_epoch > p.current THEN 'ahead'
    WHEN w.vm_id IS NOT NULL THEN 'applied'
    WHEN p.vm_id IS NULL THEN 'not_placed'
    ELSE 'stale' END::text AS result,
  CASE WHEN @relaxed::boolean THEN set_config('synchronous_commit', 'off', true) END AS relaxed
FROM input i
LEFT JOIN placed p ON p.node_id = i.node_id AND p.vm_id = i.vm_id AND p.owner_epoch = i.owner_epoch
LEFT JOIN written w ON w.vm_id = p.vm_id AND w.owner_epoch = p.owner_epoch;

-- name: VMsHeldOn :many
-- VMs of a node that a job holds, and those on their way from it or to it.
SELECT id FROM vms WHERE node_id = @node_id::uuid AND job_id IS NOT NULL
UNION SELECT m.vm_id FROM migrations m WHERE m.state = 'running' AND (m.source_node_id = @node_id::uuid OR m.target_node_id = @node_id::uuid);

-- name: VMsLose :many
-- Every VM of a node that is gone for good loses its placement. The epoch rises,
-- so that no late report and no late command of the old incarnation counts; what
-- was observed stays as it was.
WITH old AS (SELECT o.id FROM vms o WHERE o.node_id = @node_id::uuid ORDER BY o.id FOR UPDATE),
lost AS (
  UPDATE vms v SET node_id = NULL, reserved = false, owner_epoch = v.owner_epoch + 1,
    lost_node_id = @node_id::uuid, lost_at = now()
  FROM old WHERE v.id = old.id
  RETURNING v.id, v.project_id, v.name, v.job_id),
told AS (
  INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
  SELECT l.project_id, 'vm.updated', 'vm', l.id, l.name, l.job_id FROM lost l
  RETURNING id)
SELECT l.id, l.name, l.job_id, coalesce(j.state = 'needs_attention', false)::boolean AS attention
FROM lost l LEFT JOIN jobs j ON j.id = l.job_id ORDER BY l.name;
