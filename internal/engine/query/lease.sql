-- name: Beat :exec
-- A row that was removed while its server slept is made again.
INSERT INTO servers (id, address, version, beat) VALUES (@id, @address, @version, @beat)
ON CONFLICT (id) DO UPDATE SET beat = EXCLUDED.beat, seen_at = now();

-- name: Beats :many
SELECT id, beat FROM servers;

-- name: RemoveServers :exec
DELETE FROM servers WHERE id = ANY(@ids::uuid[]);

-- name: Leave :exec
WITH gone AS (DELETE FROM servers WHERE id = @id RETURNING id)
UPDATE leases SET holder = NULL FROM gone WHERE holder = gone.id;

-- name: LeaseHolder :one
SELECT holder, term FROM leases WHERE name = @name;

-- name: MakeLease :exec
INSERT INTO leases (name) VALUES (@name) ON CONFLICT DO NOTHING;

-- name: TakeLease :one
-- Succeeds only against the term that was judged.
UPDATE leases SET holder = @holder, term = term + 1 WHERE name = @name AND term = @seen RETURNING term;

-- name: GiveUpLease :exec
UPDATE leases SET holder = NULL WHERE name = @name AND holder = @holder AND term = @term;

-- name: CheckLease :one
SELECT term FROM leases WHERE name = @name AND holder = @holder AND term = @term FOR SHARE;
