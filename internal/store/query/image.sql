-- name: ImageInsert :exec
INSERT INTO images (id, project_id, name, kind, cmdline) VALUES ($1, $2, $3, $4, $5);

-- name: ImageFilePut :exec
INSERT INTO image_files (image_id, role, sha256, size_bytes, format, virtual_bytes, source_sha256, source_format)
VALUES (@image_id, @role, @sha256, @size_bytes, @format, @virtual_bytes, sqlc.narg(source_sha256), sqlc.narg(source_format));

-- name: ImageFileDelete :exec
DELETE FROM image_files WHERE image_id = @image_id AND role = @role;

-- name: ImageImportInsert :exec
INSERT INTO image_imports (job_id, image_id, role, sha256, size_bytes, format, virtual_bytes)
VALUES (@job_id, @image_id, @role, @sha256, @size_bytes, @format, @virtual_bytes);

-- name: ImageImportGet :one
SELECT * FROM image_imports WHERE job_id = $1;

-- name: ImageImportDelete :exec
DELETE FROM image_imports WHERE job_id = $1;

-- name: ImageLock :one
SELECT id, state FROM images WHERE id = $1 FOR UPDATE;

-- name: ImageSetState :execrows
UPDATE images SET state = @state, job_id = sqlc.narg(job_id) WHERE id = @id;

-- name: ImageDelete :execrows
DELETE FROM images WHERE id = $1;

-- name: ImagesUnfinished :many
-- Images that wait for files nobody has sent anything of for a day.
SELECT i.id FROM images i
WHERE i.state = 'uploading' AND i.job_id IS NULL AND i.updated_at < now() - interval '24 hours'
  AND NOT EXISTS (SELECT FROM image_uploads u WHERE u.image_id = i.id)
ORDER BY i.id LIMIT 100;

-- name: ImageUnfinished :one
-- Is it still one of them? Nobody begins an upload of it until the transaction ends.
SELECT (i.state = 'uploading' AND i.job_id IS NULL AND i.updated_at < now() - interval '24 hours'
  AND NOT EXISTS (SELECT FROM image_uploads u WHERE u.image_id = i.id))::bool AS unfinished
FROM images i WHERE i.id = @id FOR UPDATE;

-- name: ImageUsers :many
-- Some VMs made from an image, and how many there are.
SELECT v.name, count(*) OVER () AS total FROM vms v WHERE v.image_id = @image_id OR v.seed_image_id = @image_id OR v.cdrom_image_id = @image_id
  OR EXISTS (SELECT FROM storage_volumes s WHERE s.vm_id = v.id AND s.image_id = @image_id)
  OR EXISTS (SELECT FROM jobs j WHERE j.id = v.job_id AND j.kind = 'vm.cdrom' AND j.params->>'replaces' = (@image_id::uuid)::text)
ORDER BY v.name LIMIT 20;

-- name: ImageShare :one
-- Locks the image against deletion while a VM is made from it.
SELECT id FROM images WHERE id = $1 AND state = 'ready' FOR SHARE;

-- name: ImageNameHolder :one
-- Whose name this is; locks it.
SELECT n.image_id, n.alias, i.name AS image FROM image_names n JOIN images i ON i.id = n.image_id
WHERE n.project_id = @project_id AND n.name = @name FOR UPDATE OF n;

-- name: ImageAliasSet :execrows
-- Makes an alias or moves it; an image's own name is left alone.
INSERT INTO image_names (project_id, name, image_id, alias) VALUES (@project_id, @name, @image_id, true)
ON CONFLICT (project_id, name) DO UPDATE SET image_id = excluded.image_id WHERE image_names.alias;

-- name: ImageAliasRemove :execrows
DELETE FROM image_names WHERE image_id = @image_id AND name = @name AND alias;

-- name: ImageAliasesRemove :exec
DELETE FROM image_names WHERE image_id = @image_id AND alias;

-- name: ImageTouch :exec
-- What an image answers to is part of it: its revision rises.
UPDATE images SET state = state WHERE id = ANY(@ids::uuid[]);

-- name: ImageSumNodes :many
-- Some nodes, each time others, whose VMs stand on a file.
SELECT nodes.id FROM nodes WHERE nodes.id <> @besides AND nodes.state <> 'removed' AND nodes.id IN (
  SELECT v.node_id FROM image_files f JOIN vms v ON v.image_id = f.image_id WHERE f.sha256 = @sha256
  UNION
  SELECT v.node_id FROM image_files f JOIN vms v ON v.seed_image_id = f.image_id WHERE f.sha256 = @sha256
  UNION
  SELECT v.node_id FROM image_files f JOIN vms v ON v.cdrom_image_id = f.image_id WHERE f.sha256 = @sha256
  UNION
  SELECT v.node_id FROM image_files f JOIN storage_volumes s ON s.image_id = f.image_id JOIN vms v ON v.id = s.vm_id
  WHERE f.sha256 = @sha256
) ORDER BY random() LIMIT 3;

-- name: ImageSums :many
SELECT sha256 FROM image_files UNION SELECT sha256 FROM image_imports;

-- name: ImageSumLock :exec
-- Serializes, among all servers, what keeps and what removes one file's content.
SELECT pg_advisory_xact_lock(hashtextextended(@sha256, 0));

-- name: ImageSumUsed :one
SELECT (EXISTS (SELECT FROM image_files f WHERE f.sha256 = @sha256 AND f.image_id <> @image_id)
  OR EXISTS (SELECT FROM image_imports m WHERE m.sha256 = @sha256 AND m.image_id <> @image_id))::bool AS used;

-- name: ImageSumAny :one
-- Does any image have this content, or is any made from it?
SELECT (EXISTS (SELECT FROM image_files f WHERE f.sha256 = @sha256) OR EXISTS (SELECT FROM image_imports m WHERE m.sha256 = @sha256))::bool AS used;
