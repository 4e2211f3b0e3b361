package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Counts is how many objects there are of each kind and state, over all
// projects: the figures of the metrics.
type Counts struct {
	// VMs by the state they appear in.
	VMs map[string]int64
	// Nodes by what the operator decided and whether they report: "ready",
	// "cordoned", "unknown".
	Nodes map[string]int64
	// Jobs that have not ended, by kind and state.
	Jobs map[[2]string]int64
	// Unnumbered events and audit records wait for the sequencer.
	UnnumberedEvents, UnnumberedAudit int64
	// LateCertificates are the nodes whose certificate should have been renewed.
	LateCertificates int64
}

// Count counts; j is what the caller judges of nodes, and a certificate that ends
// before late should have been renewed. It reads every VM.
func (s *Store) Count(ctx context.Context, j Judged, late time.Time) (Counts, error) {
	reporting := j.Reporting
	if reporting == nil {
		reporting = []id.ID{}
	}
	var args []any
	state := j.stateSQL(func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	})
	c := Counts{VMs: map[string]int64{}, Nodes: map[string]int64{}, Jobs: map[[2]string]int64{}}
	var b pgx.Batch
	b.Queue(`SELECT `+state+`, count(*) FROM `+vmList.from+` GROUP BY 1`, args...).Query(each(func(state string, n int64) { c.VMs[state] = n }))
	b.Queue(`SELECT CASE WHEN id <> ALL($1::uuid[]) THEN 'unknown' WHEN state = 'cordoned' THEN 'cordoned' ELSE 'ready' END, count(*)
FROM nodes WHERE state <> 'removed' GROUP BY 1`, reporting).Query(each(func(state string, n int64) { c.Nodes[state] = n }))
	b.Queue(`SELECT kind, state::text, count(*) FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'unwinding') GROUP BY 1, 2
UNION ALL SELECT kind, 'needs_attention', count(*) FROM jobs WHERE state = 'needs_attention' GROUP BY 1`).Query(func(rows pgx.Rows) error {
		var kind, state string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&kind, &state, &n}, func() error { c.Jobs[[2]string{kind, state}] = n; return nil })
		return err
	})
	b.Queue(`SELECT (SELECT count(*) FROM events WHERE seq IS NULL), (SELECT count(*) FROM audit_log WHERE seq IS NULL)`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&c.UnnumberedEvents, &c.UnnumberedAudit)
	})
	b.Queue(`SELECT count(*) FROM nodes WHERE state <> 'removed' AND certificate_expires_at < $1`, late).QueryRow(func(row pgx.Row) error {
		return row.Scan(&c.LateCertificates)
	})
	return c, pgtx.Map(s.pool.SendBatch(ctx, &b).Close())
}

// each reads rows of a name and a number.
func each(take func(string, int64)) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var name string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error { take(name, n); return nil })
		return err
	}
}
