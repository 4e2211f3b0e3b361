package control

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// ConsoleTicket makes what opens the console of a VM once, within half a minute, and
// only of the incarnation that there is now: for a client that cannot send its token
// with a WebSocket.
func (s *Service) ConsoleTicket(ctx context.Context, c Caller, ref string) (secret string, expires time.Time, err error) {
	at, err := s.Placed(ctx, ref)
	if err != nil {
		return "", expires, err
	}
	secret, hash := pki.NewSecret(pki.PrefixTicket)
	err = s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, at.VM.String())
		if err != nil {
			return err
		}
		expires, err = tx.ConsoleTicketInsert(ctx, hash, store.ConsoleTicket{VM: at.VM, Epoch: at.Epoch, Principal: c.Name, Role: c.Role, Token: c.Token})
		if err != nil {
			return err
		}
		r := c.record("vm.console_ticket", "vm", v.Intent.ID, v.Intent.Name)
		r.ProjectID = &s.cfg.Project
		return tx.AuditInsert(ctx, r)
	})
	return secret, expires, err
}

// SpendConsoleTicket uses a ticket up and tells whom it speaks for. One that is for
// another VM, or for an earlier incarnation of this one, is used up, too.
func (s *Service) SpendConsoleTicket(ctx context.Context, secret, ref string) (auth.Principal, error) {
	k, err := s.cfg.Store.ConsoleTicketSpend(ctx, pki.HashSecret(secret))
	if err != nil {
		return auth.Principal{}, err
	}
	at, err := s.Placed(ctx, ref)
	if errs.Is(err, errs.DBUnavailable) {
		return auth.Principal{}, err
	}
	if err != nil || at.VM != k.VM || at.Epoch != k.Epoch {
		return auth.Principal{}, errs.New(errs.Unauthenticated, "the console ticket is not valid: it is unknown, used, over, or for something else")
	}
	return auth.Principal{Name: k.Principal, Role: k.Role, Token: k.Token}, nil
}
