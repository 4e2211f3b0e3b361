-- name: ConsoleTicketInsert :one
INSERT INTO console_tickets (hash, vm_id, owner_epoch, principal, role, token_id, expires_at)
VALUES (@hash, @vm_id, @owner_epoch, @principal, @role, sqlc.narg(token_id), now() + interval '30 seconds')
RETURNING expires_at;

-- name: ConsoleTicketSweep :exec
DELETE FROM console_tickets WHERE expires_at < now();

-- name: ConsoleTicketSpend :one
-- Whoever shows it, and for whatever: it is gone. One that is good for longer than
-- any is of a time before the clock was put back.
WITH t AS (DELETE FROM console_tickets c WHERE c.hash = @hash RETURNING c.vm_id, c.owner_epoch, c.principal, c.role, c.token_id, c.expires_at)
SELECT t.vm_id, t.owner_epoch, t.principal, t.role, (t.expires_at > now() AND t.expires_at <= now() + interval '30 seconds'
  AND (t.token_id IS NULL OR EXISTS (SELECT FROM tokens k WHERE k.id = t.token_id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()))))::boolean AS good
FROM t;
