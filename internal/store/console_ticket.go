package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ConsoleTicket opens the console of one incarnation of a VM, once.
type ConsoleTicket struct {
	VM    id.ID
	Epoch gen.OwnerEpoch
	// Principal and Role are of who asked for it, Token the credential; nil on the
	// local socket.
	Principal string
	Role      auth.Role
	Token     *id.ID
}

// ConsoleTicketInsert keeps a ticket by its hash, and forgets those that are over. It
// tells when this one is.
func (t *Tx) ConsoleTicketInsert(ctx context.Context, hash []byte, k ConsoleTicket) (expires time.Time, err error) {
	if err := t.q.ConsoleTicketSweep(ctx); err != nil {
		return expires, pgtx.Map(err)
	}
	expires, err = t.q.ConsoleTicketInsert(ctx, query.ConsoleTicketInsertParams{
		Hash: hash, VmID: k.VM, OwnerEpoch: int64(k.Epoch), Principal: k.Principal, Role: query.RoleName(k.Role), TokenID: k.Token,
	})
	return expires, pgtx.Map(err)
}

// ConsoleTicketSpend uses a ticket up; errs.Unauthenticated for none, one that is
// over, and one whose token is.
func (s *Store) ConsoleTicketSpend(ctx context.Context, hash []byte) (ConsoleTicket, error) {
	row, err := s.q.ConsoleTicketSpend(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !row.Good {
		return ConsoleTicket{}, errs.New(errs.Unauthenticated, "the console ticket is not valid: it is unknown, used, over, or for something else")
	}
	return ConsoleTicket{VM: row.VmID, Epoch: gen.OwnerEpoch(row.OwnerEpoch), Principal: row.Principal, Role: auth.Role(row.Role)}, pgtx.Map(err)
}
