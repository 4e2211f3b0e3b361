package control

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/engine/sequence"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Lives of API tokens.
const (
	DefaultTokenLife = 90 * 24 * time.Hour
	MaxTokenLife     = 365 * 24 * time.Hour
)

// NewToken is a fresh token; the secret is shown once.
type NewToken struct {
	store.Token
	Secret string
}

// Authenticate finds who a bearer token speaks for.
func (s *Service) Authenticate(ctx context.Context, secret string) (auth.Principal, error) {
	k, err := s.cfg.Store.TokenUsable(ctx, store.TokenAPI, pki.HashSecret(secret))
	if err != nil {
		return auth.Principal{}, err
	}
	if err := s.cfg.Store.TokenTouch(ctx, k.ID); err != nil {
		s.cfg.Log.Warn("a token's last use cannot be noted", "token", k.ID, "err", err)
	}
	return auth.Principal{Name: "token " + k.Name, Role: k.Role, Token: &k.ID}, nil
}

// CreateToken makes an API token.
func (s *Service) CreateToken(ctx context.Context, c Caller, name string, role auth.Role, life time.Duration) (NewToken, error) {
	if err := id.CheckName("/name", name); err != nil {
		return NewToken{}, err
	}
	if role != auth.Administrator && role != auth.Reader {
		return NewToken{}, errs.New(errs.InvalidField, "a token's role is administrator or reader").
			At(errs.Field{Pointer: "/role", Message: "must be administrator or reader", Got: string(role)})
	}
	if life <= 0 || life > MaxTokenLife {
		return NewToken{}, errs.New(errs.OutOfRange, "a token is good for 1 second to 365 days").
			At(errs.Field{Pointer: "/expires_in_seconds", Message: "is out of range", Limit: "1 to 31536000"})
	}
	n := newToken(name, role, life, c.Name)
	err := s.change(ctx, func(tx *store.Tx) error {
		if err := tx.TokenInsert(ctx, n.Token); err != nil {
			return err
		}
		return tx.AuditInsert(ctx, c.record("token.create", "token", n.ID, name))
	})
	at := s.cfg.Clock.Now()
	expires := at.Add(life)
	n.CreatedAt, n.ExpiresAt = at, &expires
	return n, err
}

func newToken(name string, role auth.Role, life time.Duration, by string) NewToken {
	secret, hash := pki.NewSecret(pki.PrefixAPI)
	return NewToken{Secret: secret, Token: store.Token{
		ID: id.New(), Kind: store.TokenAPI, Name: name, Hash: hash, Role: role, CreatedBy: by, Life: life,
	}}
}

// Tokens lists API tokens.
func (s *Service) Tokens(ctx context.Context) ([]store.Token, error) {
	return s.cfg.Store.TokenList(ctx)
}

// RevokeToken ends an API token at once. The last one of an administrator is refused
// unless it is forced: then only who can open a server's socket administers the
// cluster.
func (s *Service) RevokeToken(ctx context.Context, c Caller, token id.ID, force bool) error {
	return s.change(ctx, func(tx *store.Tx) error {
		administrators, err := tx.TokenAdministrators(ctx)
		if err != nil {
			return err
		}
		last := len(administrators) == 1 && administrators[0] == token
		if last && !force {
			return errs.New(errs.InUse, "this is the last administrator's token: without it, the cluster is administered on a server's own machine alone; make another one first, or force it").
				BlockedBy(token.String())
		}
		if err := tx.TokenRevoke(ctx, token); err != nil {
			return err
		}
		r := c.record("token.revoke", "token", token, "")
		if last {
			r.Detail = map[string]any{"forced": true}
		}
		return tx.AuditInsert(ctx, r)
	})
}

// TokensGood gives those of some tokens that are neither revoked nor over.
func (s *Service) TokensGood(ctx context.Context, tokens []id.ID) ([]id.ID, error) {
	return s.cfg.Store.TokensGood(ctx, tokens)
}

// NewSetupToken makes the one-time token of the first person, if nobody has
// spent one yet; the empty string otherwise. One that was never used is replaced.
func (s *Service) NewSetupToken(ctx context.Context) (string, error) {
	done, err := s.cfg.Store.SetupDone(ctx)
	if err != nil || done {
		return "", err
	}
	secret, hash := pki.NewSecret(pki.PrefixSetup)
	return secret, s.change(ctx, func(tx *store.Tx) error {
		return tx.TokenInsert(ctx, store.Token{ID: id.New(), Kind: store.TokenSetup, Name: "setup", Hash: hash, CreatedBy: "novacron up"})
	})
}

// SetupDone tells whether the setup token was spent.
func (s *Service) SetupDone(ctx context.Context) (bool, error) { return s.cfg.Store.SetupDone(ctx) }

// Setup spends the setup token for a first administrator's token.
func (s *Service) Setup(ctx context.Context, c Caller, secret, name string) (NewToken, error) {
	if err := id.CheckName("/name", name); err != nil {
		return NewToken{}, err
	}
	k, err := s.cfg.Store.TokenUsable(ctx, store.TokenSetup, pki.HashSecret(secret))
	if err != nil {
		return NewToken{}, err
	}
	c.Name, c.Role = "setup token", auth.Administrator
	n := newToken(name, auth.Administrator, DefaultTokenLife, c.Name)
	err = s.change(ctx, func(tx *store.Tx) error {
		if err := tx.TokenSpend(ctx, k.ID); err != nil {
			return err
		}
		if err := tx.TokenInsert(ctx, n.Token); err != nil {
			return err
		}
		return tx.AuditInsert(ctx, c.record("system.setup", "token", n.ID, name))
	})
	at := s.cfg.Clock.Now()
	expires := at.Add(DefaultTokenLife)
	n.CreatedAt, n.ExpiresAt = at, &expires
	return n, err
}

// Deny records an attempt that the gate refused. The object is what was asked for;
// detail may say more, and be nil.
func (s *Service) Deny(ctx context.Context, c Caller, action, object string, detail map[string]any) {
	err := s.cfg.Store.AuditInsert(ctx, audit.Record{
		Principal: c.Name, Role: string(c.Role), Origin: c.Origin, Action: action, ObjectKind: "route", ObjectName: errs.Clip(object),
		Outcome: audit.Denied, RequestID: c.RequestID, Detail: detail,
	})
	if err != nil {
		s.cfg.Log.Error("a denied attempt cannot be recorded", "principal", c.Name, "action", action, "err", err)
	}
}

// Audit gives a page of the audit records, newest first.
func (s *Service) Audit(ctx context.Context, p store.Page) ([]audit.Record, *store.Next, error) {
	return s.cfg.Store.AuditList(ctx, p)
}

// VerifyAudit walks the audit chain.
func (s *Service) VerifyAudit(ctx context.Context) (int64, error) {
	return sequence.VerifyAudit(ctx, s.cfg.Store.Pool())
}

// Servers lists where the cluster's servers are reached.
func (s *Service) Servers(ctx context.Context) ([]string, error) {
	return s.cfg.Store.ServerAddresses(ctx)
}

// Cluster is the cluster's id.
func (s *Service) Cluster() id.ID { return s.cfg.Cluster.ID }

// Authority is the cluster's certificate authority.
func (s *Service) Authority() *pki.Authority { return s.cfg.CA }
