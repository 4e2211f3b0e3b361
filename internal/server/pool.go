package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/storage"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (s *Server) poolRoutes() []Route {
	read := auth.Need{Resource: auth.Storage, Action: auth.Read}
	return []Route{
		handle(Route{Method: "GET", Path: "/api/v1/storage-pools", ID: "listStoragePools", Summary: "List storage pools", Need: read, Query: listParams(Param{"name", "With this name" + nameDoc})}, s.listPools),
		handle(Route{Method: "GET", Path: "/api/v1/storage-pools/{pool}", ID: "getStoragePool", Summary: "Read a storage pool, with the nodes that have it and the disks in it", Need: read}, s.getPool),
		handle(Route{Method: "DELETE", Path: "/api/v1/storage-pools/{pool}", ID: "deleteStoragePool", Summary: "Forget a storage pool that no disk is in and no node has", Need: auth.Need{Resource: auth.Storage, Action: auth.Admin}, Status: http.StatusNoContent}, s.deletePool),
	}
}

func (s *Server) listPools(ctx context.Context, r *Request, _ none) (reply[api.List[api.StoragePool]], error) {
	p, err := s.pages.read(r, "storage-pools")
	if err != nil {
		return reply[api.List[api.StoragePool]]{}, err
	}
	pools, next, err := s.control.Pools(ctx, p)
	return list(pools, s.pages.next(r, "storage-pools", next), toPool), err
}

func (s *Server) getPool(ctx context.Context, r *Request, _ none) (reply[api.StoragePool], error) {
	p, err := s.control.Pool(ctx, r.Arg("pool"))
	return reply[api.StoragePool]{Body: toPool(p), ETag: int64(p.Revision)}, err
}

func (s *Server) deletePool(ctx context.Context, r *Request, _ none) (reply[none], error) {
	return reply[none]{}, s.control.DeletePool(ctx, r.Caller, r.Arg("pool"))
}

func toPool(p storage.Pool) api.StoragePool {
	out := api.StoragePool{
		Meta: api.Meta{Kind: "storage_pool", ID: p.ID.String(), Name: p.Name, Revision: int64(p.Revision), CreatedAt: p.CreatedAt.UTC(), UpdatedAt: p.UpdatedAt.UTC()},
		Spec: api.StoragePoolSpec{Type: p.Kind},
		Status: api.StoragePoolStatus{
			CapacityBytes: api.Bytes(p.CapacityBytes), UsedBytes: api.Bytes(p.UsedBytes),
			Nodes: []api.StoragePoolNode{}, Volumes: []api.StoragePoolVolume{},
		},
	}
	for _, n := range p.Nodes {
		out.Status.Nodes = append(out.Status.Nodes, api.StoragePoolNode{
			Node: n.NodeName, Name: n.Name, Usable: n.Why == "", Reason: n.Why, FreeBytes: api.Bytes(n.FreeBytes), SeenAt: n.SeenAt.UTC(),
		})
	}
	for _, v := range p.Volumes {
		out.Status.Volumes = append(out.Status.Volumes, api.StoragePoolVolume{ID: v.ID.String(), VM: v.VMName, Slot: v.Slot, SizeBytes: api.Bytes(v.SizeBytes)})
	}
	return out
}

func toNodePools(pools []node.Pool) (out []api.NodePool) {
	for _, p := range pools {
		d := api.NodePool{Name: p.Name, Usable: p.Why == "", Reason: p.Why}
		if p.ID != id.Nil {
			d.ID = p.ID.String()
		}
		out = append(out, d)
	}
	return out
}
