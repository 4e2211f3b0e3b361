package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"github.com/novacron/novacron/api"
)

// Tokens are the API tokens.
type Tokens struct{ c *Client }

// All walks through every page.
func (s Tokens) All(ctx context.Context, o ListOptions) iter.Seq2[api.Token, error] {
	return all[api.Token](ctx, s.c, "/tokens", o)
}

// Create makes a token. The answer is the only place that ever holds it.
func (s Tokens) Create(ctx context.Context, req api.TokenCreate) (api.Token, error) {
	return create[api.Token](ctx, s.c, "/tokens", req)
}

// Revoke ends a token at once; the last one of an administrator is refused.
func (s Tokens) Revoke(ctx context.Context, id string) error {
	_, err := remove[struct{}](ctx, s.c, "/tokens/"+url.PathEscape(id))
	return err
}

// RevokeByForce ends a token at once, the last one of an administrator too: then the
// cluster is administered on a server's own machine alone.
func (s Tokens) RevokeByForce(ctx context.Context, id string) error {
	r := request{method: http.MethodDelete, path: "/tokens/" + url.PathEscape(id), query: url.Values{"force": {"true"}}}
	return s.c.do(ctx, r, &struct{}{})
}
