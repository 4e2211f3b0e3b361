package store

import (
	"context"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// NodeQuarantine puts a node into quarantine for what it did; false when it is
// there already.
func (t *Tx) NodeQuarantine(ctx context.Context, n node.Node, what string) (bool, error) {
	rows, err := t.q.NodeQuarantine(ctx, query.NodeQuarantineParams{NodeID: n.ID, What: what})
	if err != nil || rows == 0 {
		return false, pgtx.Map(err)
	}
	return true, t.NodeChanged(ctx, n)
}

// NodeRelease ends a node's quarantine; false when it is in none.
func (t *Tx) NodeRelease(ctx context.Context, n node.Node) (bool, error) {
	rows, err := t.q.NodeUnquarantine(ctx, n.ID)
	if err != nil || rows == 0 {
		return false, pgtx.Map(err)
	}
	return true, t.NodeChanged(ctx, n)
}

// NodeSpokenWith refuses a node in quarantine with errs.NodeQuarantined.
func (t *Tx) NodeSpokenWith(ctx context.Context, n id.ID) error {
	what, err := t.q.NodeQuarantined(ctx, n)
	if err != nil {
		return pgtx.Map(err)
	}
	if what != "" {
		return quarantined("", what)
	}
	return nil
}

// Quarantined refuses what is asked of a node in quarantine, or comes from one.
func (r Recovery) Quarantined(node id.ID) error {
	if what := r.WhatDid(node); what != "" {
		return quarantined("", what)
	}
	return nil
}

// WhatDid tells what a node is in quarantine for; empty when it is in none.
func (r Recovery) WhatDid(node id.ID) string {
	for _, n := range r.Nodes {
		if n.ID == node {
			return n.Misbehaved
		}
	}
	return ""
}

// Misbehaved counts the nodes in quarantine.
func (r Recovery) Misbehaved() (n int) {
	for _, h := range r.Nodes {
		if h.Misbehaved != "" {
			n++
		}
	}
	return n
}

func quarantined(name, what string) error {
	who := "this node"
	if name != "" {
		who = "node " + name
	}
	return errs.New(errs.NodeQuarantined, "%s is in quarantine: %s. Look at its host; then 'novacron node release' ends it", who, what)
}
