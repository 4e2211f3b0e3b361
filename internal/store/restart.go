package store

import (
	"context"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// RestartsDue lists up to most VMs on nodes that report, which ended by themselves
// and whose restart policy may have something to do now.
func (s *Store) RestartsDue(ctx context.Context, reporting []id.ID, most int) ([]id.ID, error) {
	if reporting == nil {
		reporting = []id.ID{}
	}
	due, err := s.q.RestartsDue(ctx, query.RestartsDueParams{Reporting: reporting, Most: int32(most)})
	return due, pgtx.Map(err)
}

// RestartsPut remembers what became of a VM by its restart policy, and tells of it.
func (t *Tx) RestartsPut(ctx context.Context, in vm.Intent, r vm.Restarts) error {
	err := t.q.RestartsPut(ctx, query.RestartsPutParams{
		VmID: in.ID, Total: int32(r.Total), InARow: int32(r.InARow), Reason: r.Reason,
		EndedAt: r.EndedAt, LastAt: r.LastAt, NextAt: r.NextAt, GaveUpAt: r.GaveUpAt,
	})
	if err != nil {
		return pgtx.Map(err)
	}
	return t.VMChanged(ctx, in, nil)
}

// RestartsForget forgets what became of a VM by its restart policy: somebody
// decided anew what is to become of it.
func (t *Tx) RestartsForget(ctx context.Context, v id.ID) error {
	return pgtx.Map(t.q.RestartsForget(ctx, v))
}
