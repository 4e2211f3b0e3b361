package control

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// readHoldsEvery is how often each server reads what is held. Until it has, it
// may accept what another server would refuse; the job then waits, and what a
// host has done since is fenced there.
const readHoldsEvery = 500 * time.Millisecond

// Holds is what this server knows to be held: asked by every change and every
// step, so that it is kept in memory.
type Holds struct {
	store *store.Store
	mu    sync.RWMutex
	now   store.Recovery
}

// Refresh reads what is held. A server does so before it does anything else.
func (h *Holds) Refresh(ctx context.Context) error {
	r, err := h.store.RecoveryGet(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = r
	return nil
}

// Run reads what is held until ctx ends.
func (h *Holds) Run(ctx context.Context, c clock.Clock, log *slog.Logger) {
	for c.Sleep(ctx, readHoldsEvery) == nil {
		if err := h.Refresh(ctx); err != nil && ctx.Err() == nil {
			log.Warn("what is in recovery hold cannot be read", "err", err)
		}
	}
}

// Now is what is held.
func (h *Holds) Now() store.Recovery {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.now
}

// On refuses what is on a node, or on none, with errs.RecoveryHold while that is
// held.
func (h *Holds) On(node *id.ID) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.now.On(node)
}

// Held tells whether what is on a node is held.
func (h *Holds) Held(node id.ID) bool { return h.On(&node) != nil }

// Any refuses while anything is held.
func (h *Holds) Any() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !h.now.Held() || h.now.Cause != "" {
		return h.now.On(nil)
	}
	return h.now.On(&h.now.Nodes[0].ID)
}

// Behind refuses while the database may not know whose something is. What a node in
// quarantine has, it knows.
func (h *Holds) Behind() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.now.Cause != "" {
		return h.now.On(nil)
	}
	for _, n := range h.now.Nodes {
		if n.Cause != store.CauseMisbehaved {
			return h.now.On(&n.ID)
		}
	}
	return nil
}

// Quarantined refuses what comes from a node in quarantine.
func (h *Holds) Quarantined(node id.ID) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.now.Quarantined(node)
}

func (h *Holds) judged() store.Judged {
	h.mu.RLock()
	defer h.mu.RUnlock()
	j := store.Judged{AllHeld: h.now.Cause != ""}
	for _, n := range h.now.Nodes {
		j.Held = append(j.Held, n.ID)
	}
	return j
}

// Holds is what is in recovery hold.
func (s *Service) Holds() *Holds { return s.holds }

// follows decides whether a node that follows another incarnation of the cluster
// may come to this one: if this one follows on it, or was just restored from a
// backup. The node takes it up then. To a server that works on an older copy of
// the database, no node comes.
func (s *Service) follows(ctx context.Context, h nodelink.Hello) ([]id.ID, error) {
	if h.Cluster == id.Nil || h.Cluster == s.cfg.Cluster.Incarnation {
		return nil, nil
	}
	follows, err := s.cfg.Store.ClusterFollows(ctx)
	if err != nil || slices.Contains(follows, h.Cluster) {
		return follows, err
	}
	if s.holds.Now().Cause != store.CauseRestored {
		return nil, errs.New(errs.Conflict, "the node follows another incarnation of this cluster: this server works on an older copy of the database")
	}
	err = s.change(ctx, func(tx *store.Tx) error { return tx.ClusterFollow(ctx, h.Cluster) })
	return append(follows, h.Cluster), err
}
