package flows

import (
	"context"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/id"
)

// eraseShared removes what a VM that lost its node has in storage pools, by other nodes that
// have them. Its owner epoch rose when the node was removed, so that each may.
func eraseShared(ctx context.Context, r *run, v vm.View) error {
	for name, p := range v.Pools() {
		cmd := &nodelink.Erase{Header: head(r, v, v.Intent.Epoch, stepTimeout)}
		cmd.Step += ": " + name
		for _, d := range v.Volumes {
			if d.PoolID != nil && *d.PoolID == p {
				cmd.Volumes = append(cmd.Volumes, d.ID)
			}
		}
		n, err := hasPool(ctx, r, name, p)
		if err == nil {
			err = r.Env.Nodes.Call(ctx, n.ID, cmd, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hasPool gives a node that can use a storage pool, or waits for one.
func hasPool(ctx context.Context, r *run, name string, p id.ID) (node.Node, error) {
	nodes, err := r.Env.Candidates.Snapshot(ctx)
	if err != nil {
		return node.Node{}, err
	}
	for _, n := range nodes {
		if n.Reporting && n.CannotUse(map[string]id.ID{name: p}) == "" {
			return n, nil
		}
	}
	return node.Node{}, workflow.Wait("its disks in storage pool "+name+" are removed once a node that can use that reports", lookForNode)
}
