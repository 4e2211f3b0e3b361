package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ErrLost says that a lease is no longer held under the term it names.
var ErrLost = errors.New("lease: the term has ended")

// Term is one server's turn in a role.
type Term struct {
	Role   string
	Holder id.ID
	Number int64
}

// Check locks the lease's row against a change of holder until tx ends, and
// fails with ErrLost if the term is over. Call it first in every transaction
// that writes on behalf of the role.
func (t Term) Check(ctx context.Context, tx pgx.Tx) error {
	_, err := query.New(tx).CheckLease(ctx, query.CheckLeaseParams{Name: t.Role, Holder: &t.Holder, Term: t.Number})
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w: %s, term %d", ErrLost, t.Role, t.Number)
	}
	return err
}

// Lead campaigns for the role until ctx ends and runs lead while this server
// holds it; lead's context ends when the lease does. When lead returns while the
// lease is held, the lease is given up and campaigned for again with the next
// beat.
func (m *Member) Lead(ctx context.Context, role string, lead func(ctx context.Context, term Term)) {
	for ctx.Err() == nil {
		tick := m.nextTick()
		if m.Valid() {
			term, ok, err := m.campaign(ctx, role)
			if err != nil && ctx.Err() == nil {
				m.opts.Log.Warn("cannot campaign", "role", role, "error", err)
			}
			if ok {
				m.serve(ctx, term, lead)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick:
		}
	}
}

// serve runs lead for one term.
func (m *Member) serve(ctx context.Context, term Term, lead func(ctx context.Context, term Term)) {
	m.opts.Log.Info("leads", "role", term.Role, "term", term.Number)
	bound, cancel := m.Bind(ctx)
	defer cancel()
	watched, end := context.WithCancelCause(bound)
	go m.watchTerm(watched, term, end)
	lead(watched, term)
	end(context.Canceled)
	free, stop := context.WithTimeout(context.WithoutCancel(ctx), m.period())
	defer stop()
	err := query.New(m.opts.Pool).GiveUpLease(free, query.GiveUpLeaseParams{Name: term.Role, Holder: &term.Holder, Term: term.Number})
	if err != nil {
		m.opts.Log.Warn("cannot give up a lease", "role", term.Role, "error", err)
	}
}

// watchTerm ends the term's context when the row says that another holds it:
// this server was away, came back, and its membership is good again.
func (m *Member) watchTerm(ctx context.Context, term Term, end context.CancelCauseFunc) {
	for {
		tick := m.nextTick()
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		row, err := query.New(m.opts.Pool).LeaseHolder(ctx, term.Role)
		if err == nil && row.Term != term.Number {
			end(ErrLost)
			return
		}
	}
}

// campaign takes the lease if nobody alive holds it.
func (m *Member) campaign(ctx context.Context, role string) (Term, bool, error) {
	q := query.New(m.opts.Pool)
	row, err := q.LeaseHolder(ctx, role)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := q.MakeLease(ctx, role); err != nil {
			return Term{}, false, fmt.Errorf("make the lease: %w", pgtx.Map(err))
		}
		row, err = q.LeaseHolder(ctx, role)
	}
	if err != nil {
		return Term{}, false, fmt.Errorf("read the lease: %w", pgtx.Map(err))
	}
	// its own earlier term was dropped when the membership ran out
	if row.Holder != nil && *row.Holder != m.id && !m.Dead(*row.Holder) {
		return Term{}, false, nil
	}
	number, err := q.TakeLease(ctx, query.TakeLeaseParams{Holder: &m.id, Name: role, Seen: row.Term})
	if errors.Is(err, pgx.ErrNoRows) {
		return Term{}, false, nil // another was faster
	}
	if err != nil {
		return Term{}, false, fmt.Errorf("take the lease: %w", pgtx.Map(err))
	}
	return Term{Role: role, Holder: m.id, Number: number}, true, nil
}
