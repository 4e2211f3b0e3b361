-- name: ImageInsert :exec
INSERT INTO images (id, project_id, name, kind, cmdline) VALUES ($1, $2, $3, $4, $5);

-- name: ImageFilePut :exec
INSERT INTO image_files (image_id, role, sha256, size_bytes, format, virtual_bytes)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: ImageLock :one
SELECT id, state FROM images WHERE id = $1 FOR UPDATE;

-- name: ImageSetState :execrows
UPDATE images SET state = @state, job_id = sqlc.narg(job_id) WHERE id = @id;

-- name: ImageDelete :execrows
DELETE FROM images WHERE id = $1;

-- name: ImageUsers :many
SELECT v.name FROM vms v WHERE v.image_id = @image_id
  OR EXISTS (SELECT FROM storage_volumes s WHERE s.vm_id = v.id AND s.image_id = @image_id)
ORDER BY v.name LIMIT 20;

-- name: ImageShare :one
-- Locks the image against deletion while a VM is made from it.
SELECT id FROM images WHERE id = $1 AND state = 'ready' FOR SHARE;

-- name: ImageSums :many
SELECT DISTINCT sha256 FROM image_files;

-- name: ImageSumLock :exec
-- Serializes, among all servers, what keeps and what removes one file's content.
SELECT pg_advisory_xact_lock(hashtextextended(@sha256, 0));

-- name: ImageSumUsed :one
SELECT EXISTS (SELECT FROM image_files WHERE sha256 = @sha256 AND image_id <> @image_id);
