package client

import (
	"context"

	"github.com/novacron/novacron/api"
)

// Recovery tells what is held because the database knows less than the nodes, and
// what is done about it when that is confirmed.
func (c *Client) Recovery(ctx context.Context) (api.Recovery, error) {
	return get[api.Recovery](ctx, c, "/recovery")
}

// ConfirmRecovery carries out the plan that Recovery named, and ends the hold. A
// plan that was carried out already is answered alike, so it may be repeated.
func (c *Client) ConfirmRecovery(ctx context.Context, req api.RecoveryConfirm) (api.Recovery, error) {
	return post[api.Recovery](ctx, c, "/recovery/confirm", nil, req)
}
