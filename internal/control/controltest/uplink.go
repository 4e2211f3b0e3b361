package controltest

import (
	"context"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Hang has the node reach servers that never answer, beside the one that does.
func (n *Node) Hang(servers int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range servers {
		n.agent.Reach(hanging{})
	}
}

type hanging struct{}

// Call implements agent.Up.
func (hanging) Call(ctx context.Context, _ string, _, _ any) error {
	<-ctx.Done()
	return ctx.Err()
}

// uplink is a node's way to the control plane, for what it does not tell by itself.
type uplink struct{ *Node }

// Call implements agent.Up.
func (u uplink) Call(ctx context.Context, method string, req, reply any) error {
	u.mu.Lock()
	down, epoch := u.down, u.epoch
	u.mu.Unlock()
	swap, ok := req.(nodelink.Swap)
	out, is := reply.(*nodelink.SwapReply)
	switch {
	case down:
		return errs.New(errs.NodeUnreachable, "the server cannot be reached")
	case !ok || !is || method != nodelink.MethodSwap || swap.NodeEpoch != epoch:
		return errs.New(errs.Unsupported, "the cluster of a test does not know the call %s", method)
	}
	if err := u.told(u.cluster.Swapping); err != nil {
		return err
	}
	got, err := u.cluster.Service.SwapVM(ctx, u.ID, swap)
	if err == nil {
		err = u.told(u.cluster.Swapped)
	}
	if err == nil {
		*out = got
	}
	return err
}

func (u uplink) told(f func(*Node) error) error {
	if f == nil {
		return nil
	}
	return f(u.Node)
}
