package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Cluster is which cluster this database is, with its sealed secrets.
type Cluster struct {
	ID, Incarnation id.ID
	CACertPEM       string
	CAKeySealed     []byte
	CursorKeySealed []byte
}

// The names of the organization and project that exist from the start.
const (
	DefaultOrganization = "main"
	DefaultProject      = "main"
)

// ClusterGet reads the cluster; errs.NotFound before the first server's start.
func (s *Store) ClusterGet(ctx context.Context) (Cluster, error) {
	row, err := s.q.ClusterGet(ctx)
	if err != nil {
		return Cluster{}, one(err, "cluster", "in this database")
	}
	return Cluster{
		ID: row.ID, Incarnation: row.Incarnation, CACertPEM: row.CaCertPem,
		CAKeySealed: row.CaKeySealed, CursorKeySealed: row.CursorKeySealed,
	}, nil
}

// ClusterInit makes the cluster with its default organization and project. Of
// servers that race, the first wins; all read the same afterwards.
func (s *Store) ClusterInit(ctx context.Context, c Cluster) error {
	return s.InTx(ctx, func(t *Tx) error {
		n, err := t.q.ClusterInsert(ctx, query.ClusterInsertParams{
			ID: c.ID, Incarnation: c.Incarnation, CaCertPem: c.CACertPEM, CaKeySealed: c.CAKeySealed, CursorKeySealed: c.CursorKeySealed,
		})
		if err != nil || n == 0 {
			return err
		}
		if err := t.q.OrganizationInsert(ctx, query.OrganizationInsertParams{ID: id.New(), Name: DefaultOrganization}); err != nil {
			return err
		}
		return t.q.ProjectInsert(ctx, query.ProjectInsertParams{ID: id.New(), Organization: DefaultOrganization, Name: DefaultProject})
	})
}

// ProjectDefault is the id of the project that exists from the start.
func (s *Store) ProjectDefault(ctx context.Context) (id.ID, error) {
	row, err := s.q.ProjectByName(ctx, query.ProjectByNameParams{Organization: DefaultOrganization, Name: DefaultProject})
	return row.ID, one(err, "project", DefaultProject)
}

// ServerAddresses lists where agents and people reach the servers that live.
func (s *Store) ServerAddresses(ctx context.Context) ([]string, error) {
	out, err := s.q.ServerAddresses(ctx)
	return out, pgtx.Map(err)
}

// TokenKind says what a token is for.
type TokenKind = query.TokenKind

// The kinds of token.
const (
	TokenAPI   = query.TokenKindApi
	TokenJoin  = query.TokenKindJoin
	TokenSetup = query.TokenKindSetup
)

// Token is a secret's record; the secret itself is never kept.
type Token struct {
	ID        id.ID
	Kind      TokenKind
	Name      string
	Hash      []byte
	Role      auth.Role // of API tokens
	CreatedBy string
	// Life is how long it is good; 0 for ever.
	Life                             time.Duration
	CreatedAt                        time.Time
	ExpiresAt, LastUsedAt, RevokedAt *time.Time
}

// TokenInsert keeps a token. A setup token replaces one that was never used.
func (t *Tx) TokenInsert(ctx context.Context, k Token) error {
	if k.Kind == TokenSetup {
		if err := t.q.SetupTokenReplace(ctx); err != nil {
			return pgtx.Map(err)
		}
	}
	p := query.TokenInsertParams{ID: k.ID, Kind: k.Kind, Name: k.Name, Hash: k.Hash, CreatedBy: k.CreatedBy}
	if k.Role != "" {
		r := query.RoleName(k.Role)
		p.Role = &r
	}
	if k.Life > 0 {
		p.Life = pgtype.Interval{Microseconds: k.Life.Microseconds(), Valid: true}
	}
	return pgtx.Map(t.q.TokenInsert(ctx, p))
}

// TokenUsable finds a good token by its hash; errs.Unauthenticated otherwise,
// whatever is wrong with it.
func (s *Store) TokenUsable(ctx context.Context, kind TokenKind, hash []byte) (Token, error) {
	row, err := s.q.TokenUsable(ctx, query.TokenUsableParams{Hash: hash, Kind: kind})
	if err != nil {
		if errs.Is(one(err, "token", ""), errs.NotFound) {
			return Token{}, errs.New(errs.Unauthenticated, "the token is not valid: it is unknown, used, expired or revoked")
		}
		return Token{}, pgtx.Map(err)
	}
	k := Token{ID: row.ID, Kind: row.Kind, Name: row.Name}
	if row.Role != nil {
		k.Role = auth.Role(*row.Role)
	}
	return k, nil
}

// TokenSpend uses up a single-use token; errs.Unauthenticated when it was used
// meanwhile.
func (t *Tx) TokenSpend(ctx context.Context, token id.ID) error {
	n, err := t.q.TokenSpend(ctx, token)
	if err == nil && n == 0 {
		return errs.New(errs.Unauthenticated, "the token is not valid: it is unknown, used, expired or revoked")
	}
	return pgtx.Map(err)
}

// TokenTouch notes that an API token was used, to the minute.
func (s *Store) TokenTouch(ctx context.Context, token id.ID) error {
	return pgtx.Map(s.q.TokenTouch(ctx, token))
}

// TokenList lists API tokens.
func (s *Store) TokenList(ctx context.Context) ([]Token, error) {
	rows, err := s.q.TokenList(ctx)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	var out []Token
	for _, r := range rows {
		k := Token{
			ID: r.ID, Kind: TokenAPI, Name: r.Name, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt,
			ExpiresAt: r.ExpiresAt, LastUsedAt: r.UsedAt, RevokedAt: r.RevokedAt,
		}
		if r.Role != nil {
			k.Role = auth.Role(*r.Role)
		}
		out = append(out, k)
	}
	return out, nil
}

// TokenAdministrators lists the tokens of administrators that are good, and keeps
// them so until the transaction ends.
func (t *Tx) TokenAdministrators(ctx context.Context) ([]id.ID, error) {
	ids, err := t.q.TokenAdministrators(ctx)
	return ids, pgtx.Map(err)
}

// TokensGood gives those of some tokens that are neither revoked nor over.
func (s *Store) TokensGood(ctx context.Context, tokens []id.ID) ([]id.ID, error) {
	good, err := s.q.TokensGood(ctx, tokens)
	return good, pgtx.Map(err)
}

// TokenRevoke ends an API token at once.
func (t *Tx) TokenRevoke(ctx context.Context, token id.ID) error {
	n, err := t.q.TokenRevoke(ctx, token)
	if err == nil && n == 0 {
		return NotFound("token", token.String())
	}
	return pgtx.Map(err)
}

// SetupDone tells whether the setup token has been used.
func (s *Store) SetupDone(ctx context.Context) (bool, error) {
	done, err := s.q.SetupDone(ctx)
	return done, pgtx.Map(err)
}
