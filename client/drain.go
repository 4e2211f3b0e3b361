package client

import (
	"context"
	"net/url"

	"github.com/novacron/novacron/api"
)

// Drain cordons a node and empties it of its VMs. One that cannot be emptied is refused
// with what stands against it, unless the request asks for what can be done.
func (s Nodes) Drain(ctx context.Context, node string, req api.NodeDrain) (Change, error) {
	return s.begin(ctx, node, "/drain", req)
}

// PlanDrain says what a drain would do with each VM. It changes nothing.
func (s Nodes) PlanDrain(ctx context.Context, node string, req api.NodeDrain) (api.DrainPlan, error) {
	return s.plan(ctx, node, "/drain", req)
}

// Return gives a node new VMs again and, if asked, what drains took from it.
func (s Nodes) Return(ctx context.Context, node string, req api.NodeReturn) (Change, error) {
	return s.begin(ctx, node, "/return", req)
}

// PlanReturn says how a node would get back what drains took from it. It changes nothing.
func (s Nodes) PlanReturn(ctx context.Context, node string, req api.NodeReturn) (api.DrainPlan, error) {
	return s.plan(ctx, node, "/return", req)
}

// LastDrain reads the newest drain of a node, or return to it, with how far each VM is.
func (s Nodes) LastDrain(ctx context.Context, node string) (api.Drain, error) {
	return get[api.Drain](ctx, s.c, nodePath(node)+"/drain")
}

func (s Nodes) begin(ctx context.Context, node, what string, req any) (Change, error) {
	return create[Change](ctx, s.c, nodePath(node)+what, req)
}

func (s Nodes) plan(ctx context.Context, node, what string, req any) (api.DrainPlan, error) {
	out, err := post[api.NodeDrainResult](ctx, s.c, nodePath(node)+what, url.Values{"dry_run": {"true"}}, req)
	if err != nil || out.Plan == nil {
		return api.DrainPlan{}, err
	}
	return *out.Plan, nil
}
