package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

type timeValue = time.Time

// Event is what a write tells readers; it has no number yet.
type Event struct {
	ProjectID  *id.ID
	Kind       string
	ObjectKind string
	ObjectID   id.ID
	ObjectName string
	JobID      *id.ID
	Data       map[string]any
}

// EventInsert records an event in the transaction of the change it tells of.
func (t *Tx) EventInsert(ctx context.Context, e Event) error {
	data, err := document(e.Data)
	if err != nil {
		return err
	}
	return pgtx.Map(t.q.EventInsert(ctx, query.EventInsertParams{
		ProjectID: e.ProjectID, Kind: e.Kind, ObjectKind: e.ObjectKind, ObjectID: e.ObjectID, ObjectName: e.ObjectName,
		JobID: e.JobID, Data: data,
	}))
}

func document(m map[string]any) ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, errs.New(errs.Internal, "a document cannot be written").Because(err)
	}
	return b, nil
}

// AuditInsert records who did what, in the transaction that did it: with whatever is
// sent next.
func (t *Tx) AuditInsert(ctx context.Context, r audit.Record) error {
	return auditInsert(ctx, t.later(), r)
}

// AuditInsert records a denied attempt: there is no change to share a
// transaction with.
func (s *Store) AuditInsert(ctx context.Context, r audit.Record) error {
	return auditInsert(ctx, s.q, r)
}

func auditInsert(ctx context.Context, q *query.Queries, r audit.Record) error {
	detail, err := document(r.Detail)
	if err != nil {
		return err
	}
	return pgtx.Map(q.AuditInsert(ctx, query.AuditInsertParams{
		Principal: r.Principal, Role: r.Role, Origin: r.Origin, Action: r.Action, ObjectKind: r.ObjectKind, ObjectID: r.ObjectID,
		ObjectName: r.ObjectName, ProjectID: r.ProjectID, JobID: r.JobID,
		Outcome: string(r.Outcome), RequestID: r.RequestID, Detail: detail,
	}))
}

var auditList = lister{
	columns: `a.seq, a.id, a.at, a.principal, a.role, a.origin, a.action, a.object_kind, a.object_id, a.object_name,
  a.project_id, a.job_id, a.outcome, a.request_id, a.detail`,
	from:  "audit_log a",
	where: []string{"a.seq IS NOT NULL"},
	filters: map[string]filter{
		"action": anyOf("a.action"), "object": named("a.object_name"), "outcome": oneOf("a.outcome", "outcome", string(audit.Accepted), string(audit.Denied)),
		"principal": exactly("a.principal"),
	},
	sorts:       map[string]sortKey{"seq": byNumber("a.seq")},
	defaultSort: "-seq",
}

func scanAudit(rows pgx.Rows) (audit.Record, Next, error) {
	var r audit.Record
	var next Next
	var n int64
	var detail []byte
	err := rows.Scan(&next.Key, &r.Seq, &n, &r.At, &r.Principal, &r.Role, &r.Origin, &r.Action,
		&r.ObjectKind, &r.ObjectID, &r.ObjectName, &r.ProjectID, &r.JobID, &r.Outcome, &r.RequestID, &detail)
	if err == nil {
		err = json.Unmarshal(detail, &r.Detail)
	}
	return r, next, err
}

// AuditList gives a page of the chained records, newest first.
func (s *Store) AuditList(ctx context.Context, p Page) ([]audit.Record, *Next, error) {
	return listRows(ctx, s.pool, auditList, p, scanAudit)
}

// Answer is what was answered to a request with an idempotency key.
type Answer struct {
	RequestHash []byte
	Status      int
	Body        []byte
}

// IdempotencyGet finds the answer given under a key; nil when there is none.
func (s *Store) IdempotencyGet(ctx context.Context, principal, key string) (*Answer, error) {
	row, err := s.q.IdempotencyGet(ctx, query.IdempotencyGetParams{Principal: principal, Key: key})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, pgtx.Map(err)
	}
	return &Answer{RequestHash: row.RequestHash, Status: int(row.Status), Body: row.Response}, nil
}

// IdempotencyPut keeps the answer in the transaction of the change; false when
// another request under the same key was first.
func (t *Tx) IdempotencyPut(ctx context.Context, principal, key string, a Answer) (bool, error) {
	n, err := t.q.IdempotencyPut(ctx, query.IdempotencyPutParams{
		Principal: principal, Key: key, RequestHash: a.RequestHash, Status: int32(a.Status), Response: a.Body,
	})
	return n == 1, pgtx.Map(err)
}

// IdempotencySweep forgets keys older than a day.
func (s *Store) IdempotencySweep(ctx context.Context) (int64, error) {
	n, err := s.q.IdempotencySweep(ctx)
	return n, pgtx.Map(err)
}

func driftText(r query.NodeUsageDriftRow) string {
	return fmt.Sprintf("node %s counts %d CPUs, %d bytes of memory and %d of disk; its VMs take %d, %d and %d",
		r.Name, r.UsedCpus, r.UsedMemoryBytes, r.UsedDiskBytes, r.RealCpus, r.RealMemory, r.RealDisk)
}
