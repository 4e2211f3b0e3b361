-- name: MigrationInsert :exec
INSERT INTO migrations (id, project_id, vm_id, vm_name, kind, reason, source_node_id, target_node_id, source_epoch,
  held_node_id, held_disk_bytes, held_cpus, held_memory_bytes, options, priority, prediction, phases, created_by, cutover_at)
VALUES (@id, @project_id, @vm_id, @vm_name, @kind, @reason, @source_node_id, @target_node_id, @source_epoch,
  @target_node_id, @held_disk_bytes, @held_cpus, @held_memory_bytes, @options, @priority, @prediction,
  jsonb_build_array(jsonb_build_object('name', 'accepted', 'at', now())), @created_by, sqlc.narg(cutover_at));

-- name: MigrationCutover :one
-- A warm migration is to come to its end, at a time or now.
UPDATE migrations SET cutover_at = coalesce(sqlc.narg(at), clock_timestamp())
WHERE id = @id AND state = 'running' AND swapped_epoch IS NULL AND NOT closed AND (options->>'warm')::boolean
RETURNING cutover_at;

-- name: MigrationWarm :one
-- What of a warm migration its flow needs: when it is to come to its end, whether its rounds have begun, how often they
-- were begun anew, and for how long its turn has been.
SELECT cutover_at, (phases @> '[{"name": "warm"}]')::boolean AS begun, clock_timestamp()::timestamptz AS now,
  (SELECT count(*) FROM jsonb_array_elements(steps) AS s (e) WHERE s.e->>'step' = 'anew')::integer AS anew,
  coalesce(extract(epoch FROM clock_timestamp() - begun_at), 0)::float8 AS seconds
FROM migrations WHERE id = @id;

-- name: MigrationsLock :exec
-- Whose turn it is, one transaction at a time decides.
SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0));

-- name: MigrationsQueue :many
-- Migrations that take part of their nodes, or are to, in the order of their turns. One
-- that only waits to have its copy removed is none of them.
SELECT m.id, m.source_node_id, s.name AS source, s.migrations_out, m.target_node_id, t.name AS target, t.migrations_in, m.begun_at
FROM migrations m JOIN nodes s ON s.id = m.source_node_id JOIN nodes t ON t.id = m.target_node_id
WHERE m.state = 'running' AND NOT m.phases @> '[{"name": "cleaning"}]'
ORDER BY m.priority DESC, m.created_at, m.id;

-- name: MigrationBegin :exec
-- By the clock, not by when its transaction began: it has waited for the lock since.
UPDATE migrations SET begun_at = clock_timestamp() WHERE id = @id AND begun_at IS NULL;

-- name: VMKeepOwner :exec
-- Nobody changes the VM's owner until the end of the transaction.
SELECT 1 FROM vms WHERE id = @id FOR NO KEY UPDATE;

-- name: VMSwap :one
-- The owner changes, if it is still the one that was copied, as it was copied. What it has
-- reserved moves with a guest that executes; one without a process has reserved nothing.
UPDATE vms v SET node_id = @to_node, owner_epoch = v.owner_epoch + 1
WHERE v.id = @id AND v.node_id = @from_node AND v.owner_epoch = @epoch AND v.job_id = @job_id
  AND (NOT v.reserved OR EXISTS (SELECT FROM migrations m WHERE m.id = @job_id AND m.kind = 'live'))
RETURNING v.owner_epoch;

-- name: MigrationEnds :one
-- Between which nodes a VM moves, and how far that is.
SELECT vm_id, source_node_id, target_node_id, state, source_epoch, coalesce(swapped_epoch, 0)::bigint AS swapped_epoch, closed FROM migrations WHERE id = @id;

-- name: MigrationClose :exec
UPDATE migrations SET closed = true WHERE id = @id;

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
WITH old AS (
  SELECT o.id, o.phases @> jsonb_build_array(jsonb_build_object('name', @phase::text)) AS begun
  FROM migrations o WHERE o.id = @id AND o.state = 'running' FOR UPDATE),
changed AS (
  UPDATE migrations m SET bytes_moved = greatest(m.bytes_moved, @bytes::bigint),
    phases = CASE WHEN old.begun THEN m.phases ELSE m.phases || jsonb_build_array(jsonb_build_object('name', @phase::text, 'at', now())) END
  FROM old WHERE m.id = old.id
  RETURNING m.id, m.project_id, m.vm_name, NOT old.begun AS fresh)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
SELECT c.project_id, 'migration.updated', 'migration', c.id, c.vm_name, c.id FROM changed c WHERE c.fresh;

-- name: MigrationProgress :exec
-- How far it is; what the document does not say stays. An event where a phase begins, and
-- none besides.
WITH old AS (
  SELECT o.id, @phase::text = '' OR o.phases @> jsonb_build_array(jsonb_build_object('name', @phase::text)) AS begun
  FROM migrations o WHERE o.id = @id AND o.state = 'running' FOR UPDATE),
changed AS (
  UPDATE migrations m SET progress = m.progress || @progress::jsonb, bytes_moved = greatest(m.bytes_moved, @bytes::bigint),
    phases = CASE WHEN old.begun THEN m.phases ELSE m.phases || jsonb_build_array(jsonb_build_object('name', @phase::text, 'at', now())) END
  FROM old WHERE m.id = old.id
  RETURNING m.id, m.project_id, m.vm_name, NOT old.begun AS fresh)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
SELECT c.project_id, 'migration.updated', 'migration', c.id, c.vm_name, c.id FROM changed c WHERE c.fresh;

-- name: MigrationSteps :exec
-- What was done because it stalled, as its node tells; what is on record already stays as
-- it is. An event where there is more.
WITH told AS (
  SELECT coalesce(jsonb_agg(s.e - 'age_ms' || jsonb_build_object('at', clock_timestamp() - (s.e->>'age_ms')::bigint * interval '1 millisecond') ORDER BY s.n), '[]') AS steps
  FROM migrations o, jsonb_array_elements(@steps::jsonb) WITH ORDINALITY AS s (e, n)
  WHERE o.id = @id AND NOT o.steps @> jsonb_build_array(jsonb_build_object('key', s.e->'key'))),
changed AS (
  UPDATE migrations m SET steps = m.steps || told.steps FROM told
  WHERE m.id = @id AND m.state = 'running' AND told.steps <> '[]' AND jsonb_array_length(m.steps) < @most::integer
  RETURNING m.id, m.project_id, m.vm_name)
INSERT INTO events (project_id, kind, object_kind, object_id, object_name, job_id)
SELECT c.project_id, 'migration.updated', 'migration', c.id, c.vm_name, c.id FROM changed c;

-- name: MigrationDowntime :exec
UPDATE migrations SET downtime_ms = coalesce(sqlc.narg(hypervisor), downtime_ms), downtime_seen_ms = coalesce(sqlc.narg(seen), downtime_seen_ms)
WHERE id = @id;

-- name: MigrationDirtyRate :one
-- How fast a guest changed memory when it was moved last.
SELECT coalesce((SELECT (m.progress->>'dirty_rate')::bigint FROM migrations m
  WHERE m.vm_id = @vm_id AND m.progress ? 'dirty_rate' ORDER BY m.id DESC LIMIT 1), 0)::bigint AS rate;

-- name: MigrationSampled :one
-- What was sampled of the guest that executes under an owner epoch when it was last to move, and when; no row when it was not.
SELECT coalesce((m.prediction->>'dirty_rate')::bigint, 0)::bigint AS rate, (m.prediction->>'sampled_at')::timestamptz AS sampled_at FROM migrations m
WHERE m.vm_id = @vm_id AND coalesce(m.swapped_epoch, m.source_epoch) = @epoch::bigint AND m.prediction->>'dirty_from' = 'sampled' AND m.prediction ? 'sampled_at' ORDER BY m.id DESC LIMIT 1;

-- name: MigrationEnd :one
-- Gives what it held, and where.
WITH old AS (SELECT o.id, o.held_node_id, o.held_disk_bytes, o.held_cpus, o.held_memory_bytes FROM migrations o WHERE o.id = @id AND o.state = 'running' FOR UPDATE)
UPDATE migrations m SET state = @state, held_node_id = NULL, held_disk_bytes = 0, held_cpus = 0, held_memory_bytes = 0, finished_at = now(),
  failure_code = sqlc.narg(failure_code), failure_message = sqlc.narg(failure_message)
FROM old WHERE m.id = old.id
RETURNING old.held_node_id, old.held_disk_bytes, old.held_cpus, old.held_memory_bytes;

-- name: MigrationsLose :exec
-- A node is gone, and with it what was held on it.
UPDATE migrations SET held_node_id = NULL, held_disk_bytes = 0, held_cpus = 0, held_memory_bytes = 0 WHERE held_node_id = @node_id::uuid;

-- name: MigrationsOf :many
-- VMs that are on their way from a node or to it.
SELECT DISTINCT vm_id FROM migrations WHERE state = 'running' AND (source_node_id = @node_id::uuid OR target_node_id = @node_id::uuid);

-- name: VMRegain :one
-- A VM whose new node was removed by force is where it was: everything is there still, and
-- what its migration held there of its disks is the VM's again. Processors and memory are
-- held until its end: no guest executes.
WITH regained AS (
  UPDATE vms v SET node_id = @source::uuid, owner_epoch = v.owner_epoch + 1, lost_node_id = NULL, lost_at = NULL, lost_reason = ''
  WHERE v.id = @id AND v.job_id = @job_id::uuid AND v.node_id IS NULL AND v.lost_node_id = @target::uuid
    AND EXISTS (SELECT FROM nodes n WHERE n.id = @source::uuid AND n.state <> 'removed')
  RETURNING v.owner_epoch),
freed AS (
  UPDATE migrations m SET held_disk_bytes = 0, source_epoch = r.owner_epoch, swapped_epoch = NULL,
    phases = m.phases || jsonb_build_array(jsonb_build_object('name', @phase::text, 'at', now()))
  FROM regained r WHERE m.id = @job_id::uuid AND m.held_node_id = @source::uuid)
SELECT r.owner_epoch FROM regained r;

-- name: MigrationFlows :many
-- Migrations whose turn has come, with what their nodes give to migrations.
SELECT m.id, m.source_node_id, m.target_node_id, s.migration_bytes_per_second AS source_rate, t.migration_bytes_per_second AS target_rate,
  coalesce((m.options->>'bytes_per_second')::bigint, 0)::bigint AS most
FROM migrations m JOIN nodes s ON s.id = m.source_node_id JOIN nodes t ON t.id = m.target_node_id
WHERE m.state = 'running' AND m.begun_at IS NOT NULL AND NOT m.phases @> '[{"name": "cleaning"}]'
ORDER BY m.id;

-- name: MigrationShare :exec
UPDATE migrations SET share_bytes_per_second = @share WHERE id = @id AND state = 'running' AND share_bytes_per_second <> @share;
