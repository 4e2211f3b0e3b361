package control

import (
	"context"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/store"
)

// Count counts what there is of each kind and state, for the metrics.
func (s *Service) Count(ctx context.Context) (store.Counts, error) {
	return s.cfg.Store.Count(ctx, s.judged(), s.cfg.Clock.Now().Add(pki.NodeLate))
}
