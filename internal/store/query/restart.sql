-- name: RestartsDue :many
-- VMs that should run, whose guest ended, and whose policy may have something to do
-- about it now. What is decided of each is vm.PlanRestart's.
SELECT v.id FROM vms v
JOIN instances o ON o.vm_id = v.id AND o.owner_epoch = v.owner_epoch
LEFT JOIN vm_restarts r ON r.vm_id = v.id
WHERE v.restart_policy <> 'never' AND v.power = 'on' AND v.job_id IS NULL AND NOT v.deleting
  AND v.node_id = ANY(@reporting::uuid[])
  AND (o.phase = 'crashed' OR (o.phase = 'exited' AND (v.failure_code IS NOT NULL OR v.restart_policy = 'always')))
  AND (r.vm_id IS NULL OR (r.gave_up_at IS NULL AND r.next_at IS NULL) OR r.next_at <= now()
    OR r.ended_at <> coalesce(v.failed_at, o.since))
ORDER BY r.next_at NULLS FIRST, v.id LIMIT @most::int;

-- name: RestartsPut :exec
INSERT INTO vm_restarts (vm_id, total, in_a_row, reason, ended_at, last_at, next_at, gave_up_at)
VALUES (@vm_id, @total, @in_a_row, @reason, @ended_at, sqlc.narg(last_at), sqlc.narg(next_at), sqlc.narg(gave_up_at))
ON CONFLICT (vm_id) DO UPDATE SET total = EXCLUDED.total, in_a_row = EXCLUDED.in_a_row, reason = EXCLUDED.reason,
  ended_at = EXCLUDED.ended_at, last_at = EXCLUDED.last_at, next_at = EXCLUDED.next_at, gave_up_at = EXCLUDED.gave_up_at;

-- name: RestartsForget :exec
DELETE FROM vm_restarts WHERE vm_id = $1;
