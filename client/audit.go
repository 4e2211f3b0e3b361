package client

import (
	"context"
	"iter"

	"github.com/novacron/novacron/api"
)

// Audit is the record of attempts at changes.
type Audit struct{ c *Client }

// All walks through every page.
func (s Audit) All(ctx context.Context, o ListOptions) iter.Seq2[api.AuditRecord, error] {
	return all[api.AuditRecord](ctx, s.c, "/audit", o)
}

// Verify walks the chain of records on the server.
func (s Audit) Verify(ctx context.Context) (api.AuditVerified, error) {
	return get[api.AuditVerified](ctx, s.c, "/audit/verify")
}
