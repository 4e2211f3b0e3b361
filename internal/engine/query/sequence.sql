-- name: Unnumbered :one
SELECT EXISTS (SELECT FROM events WHERE seq IS NULL) AS events,
  EXISTS (SELECT FROM audit_log WHERE seq IS NULL) AS audit;

-- name: LockSequencer :one
-- In a statement of its own: the next one's snapshot then begins after whoever
-- held the lock before has committed.
SELECT event_seq, audit_seq, audit_hash FROM sequencer FOR UPDATE;

-- name: NumberEvents :many
WITH batch AS (
  SELECT u.id, row_number() OVER (ORDER BY u.id) AS n
  FROM (SELECT w.id FROM events w WHERE w.seq IS NULL ORDER BY w.id LIMIT @most) u),
numbered AS (
  UPDATE events e SET seq = s.event_seq + b.n FROM batch b, sequencer s WHERE e.id = b.id
  RETURNING e.seq::bigint AS seq, e.project_id, e.kind, e.object_kind, e.object_id, e.object_name, e.job_id, e.data, e.at),
counted AS (
  UPDATE sequencer q SET event_seq = q.event_seq + (SELECT count(*) FROM numbered)
  WHERE EXISTS (SELECT FROM numbered))
SELECT * FROM numbered ORDER BY seq;

-- name: EventsAfter :many
SELECT seq::bigint AS seq, project_id, kind, object_kind, object_id, object_name, job_id, data, at
FROM events WHERE events.seq > @after::bigint ORDER BY events.seq LIMIT @most;

-- name: EventRange :one
-- The oldest number kept (the next one to be given if none is) and the newest given.
-- Those of a time before a restore are not kept: other events had them, too.
SELECT coalesce((SELECT min(e.seq) FROM events e WHERE e.seq > s.event_base), s.event_seq + 1)::bigint AS oldest, s.event_seq AS newest FROM sequencer s;

-- name: NewestEvent :one
SELECT event_seq FROM sequencer;

-- name: UnchainedAudit :many
SELECT id, at, principal, role, origin, action, object_kind, object_id, object_name, project_id, job_id, outcome, request_id, detail
FROM audit_log WHERE seq IS NULL ORDER BY id LIMIT @most;

-- name: ChainAudit :execrows
UPDATE audit_log a SET seq = c.seq, hash = c.hash
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@ats::timestamptz[]) AS at, unnest(@seqs::bigint[]) AS seq, unnest(@hashes::bytea[]) AS hash) c
WHERE a.id = c.id AND a.at = c.at AND a.seq IS NULL;

-- name: SetAuditHead :exec
UPDATE sequencer SET audit_seq = @seq, audit_hash = @hash;

-- name: AuditAfter :many
SELECT seq::bigint AS seq, hash, id, at, principal, role, origin, action, object_kind, object_id, object_name, project_id, job_id, outcome, request_id, detail
FROM audit_log a WHERE a.seq > @after::bigint ORDER BY a.seq LIMIT @most;

-- name: AuditHead :one
SELECT audit_seq, audit_hash FROM sequencer;

-- name: Notify :exec
SELECT pg_notify(@channel::text, '');
