-- name: PoolAppear :exec
-- A pool that a node has reported, unless it is known, or its name is another's.
INSERT INTO storage_pools (id, name, capacity_bytes) VALUES (@id, @name, @capacity_bytes) ON CONFLICT DO NOTHING;

-- name: PoolMeasured :exec
UPDATE storage_pools SET capacity_bytes = @capacity_bytes WHERE id = @id AND capacity_bytes <> @capacity_bytes;

-- name: NodePoolPut :exec
-- A node whose pool is another one than that of the name has a pool of no name. While it
-- cannot tell which it is, it is taken for that of the name.
INSERT INTO node_pools (node_id, name, pool_id, reported_id, capacity_bytes, free_bytes, reason)
SELECT @node_id, @name, coalesce(k.id, p.id), sqlc.narg(reported_id)::uuid, @capacity_bytes, @free_bytes,
  CASE WHEN k.id IS NOT NULL OR @reason::text <> '' THEN @reason::text
    ELSE 'has the name of another pool, ' || coalesce(n.id::text, '') || ': give it another name on this node' END
FROM (SELECT 1) one
LEFT JOIN storage_pools k ON k.id = sqlc.narg(reported_id)::uuid
LEFT JOIN storage_pools n ON n.name = @name
LEFT JOIN storage_pools p ON p.id = n.id AND sqlc.narg(reported_id)::uuid IS NULL AND @reason::text <> ''
ON CONFLICT (node_id, name) DO UPDATE SET pool_id = EXCLUDED.pool_id, reported_id = EXCLUDED.reported_id,
  capacity_bytes = EXCLUDED.capacity_bytes, free_bytes = EXCLUDED.free_bytes, reason = EXCLUDED.reason, seen_at = now();

-- name: NodePoolsKeep :exec
-- What a node has no more.
DELETE FROM node_pools WHERE node_id = @node_id AND name <> ALL(@names::text[]);

-- name: PoolUse :one
-- By id, else by name; it stays until the transaction ends.
SELECT id, name FROM storage_pools WHERE id = coalesce(sqlc.narg(id)::uuid, (SELECT n.id FROM storage_pools n WHERE n.name = @name)) FOR KEY SHARE;

-- name: PoolDelete :execrows
DELETE FROM storage_pools p WHERE p.id = @id
  AND NOT EXISTS (SELECT FROM storage_volumes s WHERE s.pool_id = p.id) AND NOT EXISTS (SELECT FROM node_pools n WHERE n.pool_id = p.id);

-- name: PoolUsageDrift :many
SELECT p.name, p.used_bytes, coalesce(s.bytes, 0)::bigint AS real_bytes
FROM storage_pools p LEFT JOIN (SELECT pool_id, sum(size_bytes) AS bytes FROM storage_volumes GROUP BY pool_id) s ON s.pool_id = p.id
WHERE p.used_bytes <> coalesce(s.bytes, 0);

-- name: NodeLacksPools :one
-- How many of a VM's disks are in storage pools that a node cannot use.
SELECT count(*) FROM storage_volumes s WHERE s.vm_id = @vm_id AND s.pool_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM node_pools p WHERE p.node_id = @node_id AND p.pool_id = s.pool_id AND p.reason = '');
