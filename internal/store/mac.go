package store

import (
	"context"

	"github.com/novacron/novacron/internal/engine/pgtx"
)

// MACsFree gives those of some addresses of network interfaces that no VM has, in their
// order.
func (t *Tx) MACsFree(ctx context.Context, drawn []string) ([]string, error) {
	free, err := t.q.MACsFree(ctx, drawn)
	return free, pgtx.Map(err)
}
