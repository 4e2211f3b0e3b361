-- name: TokenInsert :exec
INSERT INTO tokens (id, kind, name, hash, role, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + sqlc.narg(life)::interval);

-- name: TokenUsable :one
SELECT id, kind, name, role FROM tokens
WHERE hash = $1 AND kind = $2 AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > now())
  AND (kind = 'api' OR used_at IS NULL)
  -- one for joining is good for minutes, also when the database's clock was put back
  AND (kind <> 'join' OR created_at < now() + interval '1 hour');

-- name: TokensGood :many
SELECT id FROM tokens WHERE id = ANY(@ids::uuid[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: TokenSpend :execrows
-- A join or setup token is worth one use: of two that race, one row is updated.
UPDATE tokens SET used_at = now()
WHERE id = $1 AND used_at IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: TokenTouch :exec
UPDATE tokens SET used_at = now() WHERE id = $1 AND (used_at IS NULL OR used_at < now() - interval '1 minute');

-- name: TokenList :many
SELECT id, name, role, created_by, created_at, expires_at, used_at, revoked_at FROM tokens
WHERE kind = 'api' ORDER BY id;

-- name: TokenAdministrators :many
-- Locked, so that of two who each revoke the other's one comes too late.
SELECT id FROM tokens
WHERE kind = 'api' AND role = 'administrator' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
ORDER BY id FOR UPDATE;

-- name: TokenRevoke :execrows
UPDATE tokens SET revoked_at = now() WHERE id = $1 AND kind = 'api' AND revoked_at IS NULL;

-- name: SetupTokenReplace :exec
-- The plain token is shown once; a new one replaces one that was never used.
DELETE FROM tokens WHERE kind = 'setup' AND used_at IS NULL;

-- name: SetupDone :one
SELECT EXISTS (SELECT FROM tokens WHERE kind = 'setup' AND used_at IS NOT NULL);
