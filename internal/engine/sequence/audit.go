package sequence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// chainBatch bounds one chaining transaction: the hashes are made while the
// sequencer's row is locked.
const chainBatch = 500

// record is what is hashed: field order and names are for ever.
type record struct {
	Seq        int64           `json:"seq"`
	ID         int64           `json:"id"`
	At         string          `json:"at"`
	Principal  string          `json:"principal"`
	Role       string          `json:"role"`
	Origin     string          `json:"origin"`
	Action     string          `json:"action"`
	ObjectKind string          `json:"object_kind"`
	ObjectID   *id.ID          `json:"object_id"`
	ObjectName string          `json:"object_name"`
	ProjectID  *id.ID          `json:"project_id"`
	JobID      *id.ID          `json:"job_id"`
	Outcome    string          `json:"outcome"`
	RequestID  string          `json:"request_id"`
	Detail     json.RawMessage `json:"detail"`
}

// link gives the hash of a record that follows prev.
func link(prev []byte, seq int64, r query.UnchainedAuditRow) ([]byte, error) {
	detail, err := canonical(r.Detail)
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(record{
		Seq: seq, ID: r.ID, At: r.At.UTC().Format(time.RFC3339Nano), Principal: r.Principal, Role: r.Role, Origin: r.Origin,
		Action: r.Action, ObjectKind: r.ObjectKind, ObjectID: r.ObjectID, ObjectName: r.ObjectName, ProjectID: r.ProjectID,
		JobID: r.JobID, Outcome: r.Outcome, RequestID: r.RequestID, Detail: detail,
	})
	if err != nil {
		return nil, fmt.Errorf("write audit record %d as JSON: %w", seq, err)
	}
	h := sha256.New()
	_, _ = h.Write(prev)
	_, _ = h.Write(doc)
	return h.Sum(nil), nil
}

// canonical writes a document with sorted keys and without spaces; numbers stay
// as the database prints them.
func canonical(doc []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read an audit record's detail: %w", err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write an audit record's detail: %w", err)
	}
	return out, nil
}

// chainAll chains until no committed record is without a number.
func (s *Sequencer) chainAll(ctx context.Context) error {
	for {
		n, err := s.chainBatch(ctx)
		if err != nil || n < chainBatch {
			return err
		}
	}
}

func (s *Sequencer) chainBatch(ctx context.Context) (int, error) {
	n := 0
	err := pgtx.Run(ctx, s.opts.Pool, func(tx pgx.Tx) error {
		q := query.New(tx)
		head, err := q.LockSequencer(ctx)
		if err != nil {
			return fmt.Errorf("lock the sequencer: %w", err)
		}
		rows, err := q.UnchainedAudit(ctx, chainBatch)
		if err != nil {
			return fmt.Errorf("read unchained records: %w", err)
		}
		n = len(rows)
		if n == 0 {
			return nil
		}
		return chain(ctx, q, head, rows)
	})
	return n, err
}

func chain(ctx context.Context, q *query.Queries, head query.LockSequencerRow, rows []query.UnchainedAuditRow) error {
	var p query.ChainAuditParams
	seq, hash := head.AuditSeq, head.AuditHash
	for _, r := range rows {
		seq++
		var err error
		if hash, err = link(hash, seq, r); err != nil {
			return err
		}
		p.Ids, p.Ats = append(p.Ids, r.ID), append(p.Ats, r.At)
		p.Seqs, p.Hashes = append(p.Seqs, seq), append(p.Hashes, hash)
	}
	n, err := q.ChainAudit(ctx, p)
	if err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	if n != int64(len(rows)) {
		return errs.New(errs.Internal, "%d of %d audit records could be chained", n, len(rows))
	}
	return q.SetAuditHead(ctx, query.SetAuditHeadParams{Seq: seq, Hash: hash})
}

// VerifyAudit walks the audit chain and gives the number of records in it; an
// error names the first record that does not fit.
func VerifyAudit(ctx context.Context, db *pgxpool.Pool) (int64, error) {
	var seq int64
	hash := make([]byte, sha256.Size)
	// one snapshot: records chained meanwhile are not a broken end
	err := pgx.BeginTxFunc(ctx, db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := query.New(tx)
		head, err := q.AuditHead(ctx)
		if err != nil {
			return fmt.Errorf("read the head of the audit chain: %w", err)
		}
		for {
			rows, err := q.AuditAfter(ctx, query.AuditAfterParams{After: seq, Most: 1000})
			if err != nil {
				return fmt.Errorf("read the audit chain: %w", err)
			}
			for _, r := range rows {
				if hash, err = follows(hash, seq, r); err != nil {
					return err
				}
				seq++
			}
			if len(rows) < 1000 {
				break
			}
		}
		if seq != head.AuditSeq || !bytes.Equal(hash, head.AuditHash) {
			return errs.New(errs.Conflict, "the audit chain ends at record %d, and %d were chained: records are missing at its end",
				seq, head.AuditSeq)
		}
		return nil
	})
	return seq, pgtx.Map(err)
}

// follows checks one record against what came before and gives its hash.
func follows(prev []byte, last int64, r query.AuditAfterRow) ([]byte, error) {
	if r.Seq != last+1 {
		return nil, errs.New(errs.Conflict, "the audit chain has no record %d", last+1)
	}
	hash, err := link(prev, r.Seq, query.UnchainedAuditRow{
		ID: r.ID, At: r.At, Principal: r.Principal, Role: r.Role, Origin: r.Origin, Action: r.Action, ObjectKind: r.ObjectKind,
		ObjectID: r.ObjectID, ObjectName: r.ObjectName, ProjectID: r.ProjectID, JobID: r.JobID, Outcome: r.Outcome,
		RequestID: r.RequestID, Detail: r.Detail,
	})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(hash, r.Hash) {
		return nil, errs.New(errs.Conflict, "record %d of the audit chain was changed after it was chained", r.Seq)
	}
	return hash, nil
}
