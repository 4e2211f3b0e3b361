package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/novacron/novacron/api"
)

// Nodes are the hosts. A node is named by its name or its id.
type Nodes struct{ c *Client }

func nodePath(node string) string { return "/nodes/" + url.PathEscape(node) }

// List gives one page.
func (s Nodes) List(ctx context.Context, o ListOptions) (api.List[api.Node], error) {
	return list[api.Node](ctx, s.c, "/nodes", o)
}

// All walks through every page.
func (s Nodes) All(ctx context.Context, o ListOptions) iter.Seq2[api.Node, error] {
	return all[api.Node](ctx, s.c, "/nodes", o)
}

// Get reads one.
func (s Nodes) Get(ctx context.Context, node string) (api.Node, error) {
	return get[api.Node](ctx, s.c, nodePath(node))
}

// Patch changes a node. revision, unless nil, is what it must still be at.
func (s Nodes) Patch(ctx context.Context, node string, revision *int64, patch api.NodePatch) (api.Node, error) {
	return amend[api.Node](ctx, s.c, nodePath(node), revision, patch)
}

// Token makes a single-use token with which a host joins the cluster.
func (s Nodes) Token(ctx context.Context) (api.NodeToken, error) {
	return create[api.NodeToken](ctx, s.c, "/node-tokens", struct{}{})
}

// Cordon keeps new VMs off a node.
func (s Nodes) Cordon(ctx context.Context, node string) (api.Node, error) {
	return post[api.Node](ctx, s.c, nodePath(node)+"/cordon", nil, nil)
}

// Uncordon gives a node new VMs again.
func (s Nodes) Uncordon(ctx context.Context, node string) (api.Node, error) {
	return post[api.Node](ctx, s.c, nodePath(node)+"/uncordon", nil, nil)
}

// Release ends the quarantine of a node that did what no agent does.
func (s Nodes) Release(ctx context.Context, node string) (api.Node, error) {
	return post[api.Node](ctx, s.c, nodePath(node)+"/release", nil, nil)
}

// Remove takes a node out of the cluster for ever; one with VMs is refused.
func (s Nodes) Remove(ctx context.Context, node string) error {
	_, err := remove[struct{}](ctx, s.c, nodePath(node))
	return err
}

// RemoveByForce takes a node that is gone for good out of the cluster, with the
// VMs on it: the caller states that its host is off and stays off. The node must
// still be at the revision, so that no more is lost than the caller has seen. One
// that reports is refused.
func (s Nodes) RemoveByForce(ctx context.Context, node string, revision int64) error {
	r := request{method: http.MethodDelete, path: nodePath(node), query: url.Values{"force": {"true"}}, header: http.Header{}}
	r.header.Set("If-Match", strconv.Quote(strconv.FormatInt(revision, 10)))
	return s.c.do(ctx, r, &struct{}{})
}
