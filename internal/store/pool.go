package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/storage"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var poolList = lister{
	columns: `p.id, p.name, p.kind, p.capacity_bytes, p.used_bytes, p.revision, p.created_at, p.updated_at,
  coalesce((SELECT jsonb_agg(jsonb_build_object('node', o.node_id, 'node_name', n.name, 'name', o.name, 'total', o.capacity_bytes, 'free', o.free_bytes, 'why', o.reason, 'seen', o.seen_at) ORDER BY n.name, o.name)
    FROM node_pools o JOIN nodes n ON n.id = o.node_id WHERE o.pool_id = p.id), '[]'),
  coalesce((SELECT jsonb_agg(jsonb_build_object('id', s.id, 'vm', s.vm_id, 'vm_name', v.name, 'slot', s.slot, 'size', s.size_bytes) ORDER BY v.name, v.id, s.slot)
    FROM storage_volumes s JOIN vms v ON v.id = s.vm_id WHERE s.pool_id = p.id), '[]')`,
	from:        "storage_pools p",
	filters:     map[string]filter{"name": named("p.name")},
	sorts:       map[string]sortKey{"name": byName("p.name"), "created_at": byID("p.id")},
	defaultSort: "name",
	idColumn:    "p.id",
}

func scanPool(rows pgx.Rows) (storage.Pool, Next, error) {
	var p storage.Pool
	var next Next
	var nodes, volumes []byte
	err := rows.Scan(&next.Key, &p.ID, &p.Name, &p.Kind, &p.CapacityBytes, &p.UsedBytes, &p.Revision, &p.CreatedAt, &p.UpdatedAt, &nodes, &volumes)
	next.ID = p.ID
	if err != nil {
		return p, next, err
	}
	var on []struct {
		Node     id.ID     `json:"node"`
		NodeName string    `json:"node_name"`
		Name     string    `json:"name"`
		Total    int64     `json:"total"`
		Free     int64     `json:"free"`
		Why      string    `json:"why"`
		Seen     time.Time `json:"seen"`
	}
	var in []struct {
		ID     id.ID  `json:"id"`
		VM     id.ID  `json:"vm"`
		VMName string `json:"vm_name"`
		Slot   int    `json:"slot"`
		Size   int64  `json:"size"`
	}
	for dst, src := range map[any][]byte{&on: nodes, &in: volumes} {
		if err := json.Unmarshal(src, dst); err != nil {
			return p, next, errs.New(errs.Internal, "the record of storage pool %q is damaged", p.Name).Because(err)
		}
	}
	for _, o := range on {
		p.Nodes = append(p.Nodes, storage.On{Node: o.Node, NodeName: o.NodeName, Name: o.Name, TotalBytes: o.Total, FreeBytes: o.Free, Why: o.Why, SeenAt: o.Seen})
	}
	for _, v := range in {
		p.Volumes = append(p.Volumes, storage.Volume{ID: v.ID, VM: v.VM, VMName: v.VMName, Slot: v.Slot, SizeBytes: v.Size})
	}
	return p, next, nil
}

// PoolList gives a page of the storage pools.
func (s *Store) PoolList(ctx context.Context, p Page) ([]storage.Pool, *Next, error) {
	return listRows(ctx, s.pool, poolList, p, scanPool)
}

// PoolGet finds a storage pool by id or name.
func (s *Store) PoolGet(ctx context.Context, ref string) (storage.Pool, error) {
	return poolGet(ctx, s.pool, ref)
}

// PoolGet finds a storage pool by id or name.
func (t *Tx) PoolGet(ctx context.Context, ref string) (storage.Pool, error) {
	return poolGet(ctx, t, ref)
}

func poolGet(ctx context.Context, db querier, ref string) (storage.Pool, error) {
	l, arg := poolList, any(ref)
	l.where = []string{"p.name = $1"}
	if u, err := id.Parse(ref); err == nil {
		l.where, arg = []string{"p.id = $1"}, u
	}
	found, _, err := listRows(ctx, db, l, Page{Limit: 1}, scanPool, arg)
	if err == nil && len(found) == 0 {
		err = NotFound("storage pool", ref)
	}
	if err != nil {
		return storage.Pool{}, err
	}
	return found[0], nil
}

// PoolUse finds a storage pool by id or name for a disk that is about to be in it: it is
// not deleted until the transaction ends.
func (t *Tx) PoolUse(ctx context.Context, ref string) (storage.Pool, error) {
	p := query.PoolUseParams{Name: ref}
	if u, err := id.Parse(ref); err == nil {
		p.ID = &u
	}
	row, err := t.q.PoolUse(ctx, p)
	return storage.Pool{ID: row.ID, Name: row.Name}, one(err, "storage pool", ref)
}

// NodePools takes what a node says of the storage pools that it has. A pool that nobody
// has reported yet is known from then on, under the name that this node has for it.
func (t *Tx) NodePools(ctx context.Context, node id.ID, pools []nodelink.Pool) error {
	names := []string{}
	for _, p := range pools {
		names = append(names, p.Name)
		put := query.NodePoolPutParams{NodeID: node, Name: p.Name, CapacityBytes: p.TotalBytes, FreeBytes: p.FreeBytes, Reason: p.Why}
		if p.ID != id.Nil {
			put.ReportedID = &p.ID
			if err := t.poolSeen(ctx, p); err != nil {
				return err
			}
		}
		if err := t.q.NodePoolPut(ctx, put); err != nil {
			return pgtx.Map(err)
		}
	}
	return pgtx.Map(t.q.NodePoolsKeep(ctx, query.NodePoolsKeepParams{NodeID: node, Names: names}))
}

func (t *Tx) poolSeen(ctx context.Context, p nodelink.Pool) error {
	if err := t.q.PoolAppear(ctx, query.PoolAppearParams{ID: p.ID, Name: p.Name, CapacityBytes: p.TotalBytes}); err != nil {
		return pgtx.Map(err)
	}
	if p.Why != "" {
		return nil
	}
	return pgtx.Map(t.q.PoolMeasured(ctx, query.PoolMeasuredParams{ID: p.ID, CapacityBytes: p.TotalBytes}))
}

// PoolDelete forgets a storage pool that no disk is in and no node has.
func (t *Tx) PoolDelete(ctx context.Context, p storage.Pool) error {
	n, err := t.q.PoolDelete(ctx, p.ID)
	if err == nil && n == 0 {
		err = errs.New(errs.Conflict, "storage pool %q was put to use just now; look again", p.Name)
	}
	return pgtx.Map(err)
}

// PoolUsageDrift lists pools whose counters disagree with their disks, one sentence each:
// a bug, never to be seen.
func (s *Store) PoolUsageDrift(ctx context.Context) ([]string, error) {
	rows, err := s.q.PoolUsageDrift(ctx)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	var out []string
	for _, r := range rows {
		out = append(out, fmt.Sprintf("storage pool %s counts %d bytes and has %d", r.Name, r.UsedBytes, r.RealBytes))
	}
	return out, nil
}
