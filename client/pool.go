package client

import (
	"context"
	"iter"
	"net/url"

	"github.com/novacron/novacron/api"
)

// StoragePools are places for disks that several nodes have. A pool is named by its name
// or its id.
type StoragePools struct{ c *Client }

func poolPath(pool string) string { return "/storage-pools/" + url.PathEscape(pool) }

// List gives one page.
func (s StoragePools) List(ctx context.Context, o ListOptions) (api.List[api.StoragePool], error) {
	return list[api.StoragePool](ctx, s.c, "/storage-pools", o)
}

// All walks through every page.
func (s StoragePools) All(ctx context.Context, o ListOptions) iter.Seq2[api.StoragePool, error] {
	return all[api.StoragePool](ctx, s.c, "/storage-pools", o)
}

// Get reads one, with the nodes that have it and the disks that are in it.
func (s StoragePools) Get(ctx context.Context, pool string) (api.StoragePool, error) {
	return get[api.StoragePool](ctx, s.c, poolPath(pool))
}

// Delete forgets a pool that no disk is in and no node has. What is in its place stays.
func (s StoragePools) Delete(ctx context.Context, pool string) error {
	_, err := remove[struct{}](ctx, s.c, poolPath(pool))
	return err
}
