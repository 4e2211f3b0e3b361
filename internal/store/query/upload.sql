-- name: UploadInsert :exec
INSERT INTO image_uploads (id, project_id, image_id, role, principal, size_bytes, sha256)
VALUES (@id, @project_id, @image_id, @role, @principal, @size_bytes, sqlc.narg(sha256));

-- name: UploadList :many
-- A principal's open uploads of one image: at most one for each of its files.
SELECT * FROM image_uploads WHERE image_id = @image_id AND principal = @principal ORDER BY role;

-- name: UploadGet :one
SELECT * FROM image_uploads WHERE id = @id AND image_id = @image_id AND principal = @principal;

-- name: UploadProgress :execrows
-- Only who knows where the upload stood may say where it stands.
UPDATE image_uploads SET offset_bytes = @offset_bytes, hash_state = @hash_state, server = @server,
  expires_at = now() + interval '24 hours'
WHERE id = @id AND offset_bytes = @believed;

-- name: UploadOfJob :one
-- What a job of ours reads from elsewhere: it has the job's id.
SELECT * FROM image_uploads WHERE id = $1;

-- name: UploadIs :execrows
-- What the file is, as the other side says now; nothing of it is there yet.
UPDATE image_uploads SET size_bytes = @size_bytes, validator = @validator, offset_bytes = 0, hash_state = '',
  expires_at = now() + interval '24 hours' WHERE id = @id;

-- name: UploadDelete :execrows
DELETE FROM image_uploads WHERE id = $1;

-- name: UploadsEnd :exec
-- The file came: whoever else sends it need not.
DELETE FROM image_uploads WHERE image_id = $1 AND role = $2;

-- name: UploadIDs :many
SELECT id FROM image_uploads;

-- name: UploadExpire :execrows
-- One that would be kept for longer than a day was sent before the database's clock
-- was put back: its day begins now.
WITH back AS (
  UPDATE image_uploads SET expires_at = now() + interval '24 hours' WHERE expires_at > now() + interval '25 hours')
DELETE FROM image_uploads WHERE expires_at < now();
