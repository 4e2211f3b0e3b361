package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Facts are what a database says of itself, to a person who is about to replace
// it or to put it back.
type Facts struct {
	Cluster, Incarnation id.ID
	CACertPEM            string
	CAKeySealed          []byte
	// EventSeq is the last number given to an event.
	EventSeq int64
	VMs      int64
	// Newest is when anything was recorded last; zero when nothing was.
	Newest time.Time
}

// ReadFacts reads them, with any role that may read. errs.NotFound when the
// database holds no cluster of ours.
func ReadFacts(ctx context.Context, conn *pgx.Conn) (Facts, error) {
	var f Facts
	var ours bool
	err := conn.QueryRow(ctx, "SELECT to_regclass('cluster') IS NOT NULL AND to_regclass('goose_db_version') IS NOT NULL").Scan(&ours)
	if err == nil && !ours {
		return f, errs.New(errs.NotFound, "there is no cluster of NovaCron in this database")
	}
	var newest *time.Time
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT c.id, c.incarnation, c.ca_cert_pem, c.ca_key_sealed, s.event_seq,
  (SELECT count(*) FROM vms), (SELECT max(at) FROM events) FROM cluster c, sequencer s`).
			Scan(&f.Cluster, &f.Incarnation, &f.CACertPEM, &f.CAKeySealed, &f.EventSeq, &f.VMs, &newest)
	}
	if err != nil {
		return f, one(err, "cluster", "in this database")
	}
	if newest != nil {
		f.Newest = *newest
	}
	return f, nil
}

// Restored says what was put back.
type Restored struct {
	// BackupOf is when the backup was made, Incarnation the new one.
	BackupOf    time.Time
	Incarnation id.ID
	// Before is what was there; nil when it is not known.
	Before *Facts
	// Revoked are API tokens that were revoked there, by when.
	Revoked map[id.ID]time.Time
	// By is who did it, for the audit log; File what from.
	By, File string
}

// skipped is how many numbers of events are passed over when it is not known how
// many were given after the backup.
const skipped = 1_000_000_000

// MarkRestored marks a database, before it is put into its place, as restored from
// a backup: the first server that starts on it holds the whole cluster. What was
// observed is forgotten, since nodes tell it anew; servers of the past hold
// nothing; no reader of events takes new ones for old ones; tokens that were
// revoked stay so, and single-use ones are spent.
func MarkRestored(ctx context.Context, conn *pgx.Conn, r Restored) error {
	return pgtx.Run(ctx, conn, func(tx pgx.Tx) error { return markRestored(ctx, tx, r) })
}

func markRestored(ctx context.Context, tx pgx.Tx, r Restored) error {
	reason := "the database was put back from a backup of " + r.BackupOf.UTC().Format(time.RFC3339)
	before, base := []id.ID{}, int64(skipped)
	if r.Before != nil {
		before = append(before, r.Before.Incarnation)
	}
	var mine int64
	if err := tx.QueryRow(ctx, "SELECT event_seq FROM sequencer FOR UPDATE").Scan(&mine); err != nil {
		return err
	}
	base += mine
	if r.Before != nil {
		base = max(mine, r.Before.EventSeq) + 1
	}
	var ids []id.ID
	var ats []time.Time
	for k, at := range r.Revoked {
		ids, ats = append(ids, k), append(ats, at)
	}
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE recovery SET cause = 'restored', reason = $1, since = now(), restored_at = now(), backup_of = $2,
  plan = '', confirmed_at = NULL, confirmed_by = ''`, reason, r.BackupOf)
	batch.Queue(`DELETE FROM recovery_nodes WHERE misbehaved = ''`)
	batch.Queue(`UPDATE recovery_nodes SET cause = 'misbehaved', reason = misbehaved`)
	batch.Queue(`DELETE FROM recovery_left`)
	batch.Queue(`UPDATE cluster SET incarnation = $1,
  predecessors = ARRAY(SELECT DISTINCT p FROM unnest(predecessors || incarnation || $2::uuid[]) p WHERE p <> $1)`, r.Incarnation, before)
	batch.Queue(`UPDATE sequencer SET event_seq = $1, event_base = $1`, base)
	batch.Queue(`DELETE FROM instances`)
	batch.Queue(`DELETE FROM servers`)
	batch.Queue(`UPDATE leases SET holder = NULL`)
	batch.Queue(`UPDATE jobs SET holder = NULL WHERE holder IS NOT NULL`)
	batch.Queue(`UPDATE tokens SET expires_at = now() WHERE kind <> 'api' AND used_at IS NULL`)
	batch.Queue(`UPDATE tokens t SET revoked_at = r.at FROM (SELECT unnest($1::uuid[]) AS id, unnest($2::timestamptz[]) AS at) r
  WHERE t.id = r.id AND t.revoked_at IS NULL`, ids, ats)
	batch.Queue(`INSERT INTO audit_log (principal, role, origin, action, object_kind, object_id, outcome, detail)
SELECT $1, 'owner', 'database', 'database.restore', 'cluster', c.id, 'accepted', jsonb_build_object('backup_of', $2::timestamptz, 'file', $3::text)
FROM cluster c`, r.By, r.BackupOf, r.File)
	batch.Queue(`INSERT INTO events (kind, object_kind, object_id, data)
SELECT 'recovery.updated', 'cluster', c.id, jsonb_build_object('held', true, 'reason', $1::text) FROM cluster c`, reason)
	return tx.SendBatch(ctx, batch).Close()
}

// ReadRevoked lists the API tokens that were revoked.
func ReadRevoked(ctx context.Context, conn *pgx.Conn) (map[id.ID]time.Time, error) {
	rows, err := conn.Query(ctx, "SELECT id, revoked_at FROM tokens WHERE revoked_at IS NOT NULL")
	if err != nil {
		return nil, pgtx.Map(err)
	}
	out := map[id.ID]time.Time{}
	var k id.ID
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&k, &at}, func() error { out[k] = at; return nil })
	return out, pgtx.Map(err)
}
