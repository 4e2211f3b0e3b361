package agent

import (
	"context"
	"testing"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A node takes up the incarnation that follows on its own, durably and before it
// counts, and from then on no server of an earlier one.
func TestFollow(t *testing.T) {
	b := newBench(t)
	b.agent.cfg.Inventory = func(context.Context) (nodelink.Inventory, error) { return nodelink.Inventory{}, nil }
	mine, next := b.agent.following(), id.New()
	var kept id.ID
	b.agent.cfg.Follow = func(c id.ID) error { kept = c; return nil }
	greet := func(w nodelink.Welcome) error {
		_, err := b.agent.Greet(t.Context(), upFunc(func(_ context.Context, _ string, req, reply any) error {
			if h := req.(nodelink.Hello); h.Cluster != b.agent.following() {
				t.Errorf("the hello tells of %s", h.Cluster)
			}
			*reply.(*nodelink.Welcome) = w
			return nil
		}), "test")
		return err
	}
	if err := greet(nodelink.Welcome{Cluster: next}); !errs.Is(err, errs.Conflict) {
		t.Errorf("a stranger: %v", err)
	}
	if err := greet(nodelink.Welcome{Cluster: next, Follows: []id.ID{id.New(), mine}}); err != nil || kept != next || b.agent.following() != next {
		t.Errorf("the next one: %v, kept %s", err, kept)
	}
	if err := greet(nodelink.Welcome{Cluster: mine}); !errs.Is(err, errs.Conflict) {
		t.Errorf("the one before: %v", err)
	}
	b.agent.cfg.Follow = func(id.ID) error { return errs.New(errs.NoSpace, "full") }
	if err := greet(nodelink.Welcome{Cluster: id.New(), Follows: []id.ID{next}}); !errs.Is(err, errs.NoSpace) || b.agent.following() != next {
		t.Errorf("what cannot be kept counts: %v", err)
	}
}
