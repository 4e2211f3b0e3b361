package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

var nodeList = lister{
	columns: `n.id, n.name, n.state::text, n.simulated, n.shutdown_policy, n.node_epoch, n.lease_seq, n.seen_at, n.certificate_expires_at, n.agent_version, n.key_hash, n.inventory,
  n.cpus, n.memory_bytes, n.disk_bytes, n.used_cpus, n.used_memory_bytes, n.used_disk_bytes,
  w.vms, w.cpus, w.memory_bytes, (SELECT count(*) FROM migrations m WHERE m.held_node_id = n.id), n.migrations_out, n.migrations_in, n.migration_bytes_per_second,
  (SELECT jsonb_agg(jsonb_build_object('id', coalesce(p.pool_id, '00000000-0000-0000-0000-000000000000'), 'name', p.name, 'why', p.reason) ORDER BY p.name) FROM node_pools p WHERE p.node_id = n.id),
  n.revision, n.created_at, n.updated_at`,
	from: `nodes n CROSS JOIN LATERAL (
  SELECT count(*) AS vms, coalesce(sum(v.cpus), 0)::int AS cpus, coalesce(sum(v.memory_bytes), 0)::bigint AS memory_bytes
  FROM vms v WHERE v.node_id = n.id) w`,
	where:       []string{"n.state <> 'removed'"},
	filters:     map[string]filter{"name": named("n.name"), "state": oneOf("n.state::text", "state", "active", "cordoned")},
	sorts:       map[string]sortKey{"name": byName("n.name"), "created_at": byID("n.id")},
	defaultSort: "name",
	idColumn:    "n.id",
}

func scanNode(rows pgx.Rows) (node.Node, Next, error) {
	var n node.Node
	var next Next
	var inventory, pools []byte
	var seen, expires *timeValue
	err := rows.Scan(&next.Key, &n.ID, &n.Name, &n.State, &n.Simulated, &n.Shutdown, &n.Epoch, &n.LeaseSeq, &seen, &expires,
		&n.AgentVersion, &n.KeyHash, &inventory,
		&n.Capacity.CPUs, &n.Capacity.MemoryBytes, &n.Capacity.DiskBytes, &n.Used.CPUs, &n.Used.MemoryBytes, &n.Used.DiskBytes,
		&n.VMs, &n.Committed.CPUs, &n.Committed.MemoryBytes, &n.Copies, &n.Migrations.Out, &n.Migrations.In, &n.Migrations.BytesPerSecond, &pools, &n.Revision, &n.CreatedAt, &n.UpdatedAt)
	if err != nil {
		return n, next, err
	}
	if seen != nil {
		n.SeenAt = *seen
	}
	if expires != nil {
		n.CertificateExpiresAt = *expires
	}
	next.ID = n.ID
	if n.Inventory, err = readInventory(inventory); err != nil {
		return n, next, errs.New(errs.Internal, "the inventory of node %q is damaged", n.Name).Because(err)
	}
	n.Pools, err = readNodePools(pools)
	return n, next, err
}

func readNodePools(b []byte) (out []node.Pool, err error) {
	var docs []struct {
		ID   id.ID  `json:"id"`
		Name string `json:"name"`
		Why  string `json:"why"`
	}
	if len(b) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(b, &docs); err != nil {
		return nil, errs.New(errs.Internal, "the storage pools of a node are damaged").Because(err)
	}
	for _, d := range docs {
		out = append(out, node.Pool(d))
	}
	return out, nil
}

// NodeList gives a page of the nodes. Whether they report is for the caller to
// judge.
func (s *Store) NodeList(ctx context.Context, p Page) ([]node.Node, *Next, error) {
	return listRows(ctx, s.pool, nodeList, p, scanNode)
}

// NodeGet finds a node by id or name.
func (s *Store) NodeGet(ctx context.Context, ref string) (node.Node, error) {
	return nodeGet(ctx, s.pool, ref)
}

// NodeSeen finds a node, as it is now, and locks nothing.
func (t *Tx) NodeSeen(ctx context.Context, ref string) (node.Node, error) {
	return nodeGet(ctx, t, ref)
}

// NodeGet finds a node and locks it against placements until the transaction
// ends.
func (t *Tx) NodeGet(ctx context.Context, ref string) (node.Node, error) {
	n, err := nodeGet(ctx, t, ref)
	if err != nil {
		return n, err
	}
	if _, err := t.q.NodeLock(ctx, n.ID); err != nil {
		return n, one(err, "node", ref)
	}
	return nodeGet(ctx, t, n.ID.String())
}

func nodeGet(ctx context.Context, db querier, ref string) (node.Node, error) {
	l, arg := nodeList, any(ref)
	if u, err := id.Parse(ref); err == nil {
		l.where, arg = append([]string{"n.id = $1"}, l.where...), u
	} else {
		l.where = append([]string{"n.name = $1"}, l.where...)
	}
	found, _, err := listRows(ctx, db, l, Page{Limit: 1}, scanNode, arg)
	if err == nil && len(found) == 0 {
		err = NotFound("node", ref)
	}
	if err != nil {
		return node.Node{}, err
	}
	return found[0], nil
}

// NodeInsert records a node that joins.
func (t *Tx) NodeInsert(ctx context.Context, n node.Node) error {
	err := t.q.NodeInsert(ctx, query.NodeInsertParams{ID: n.ID, Name: n.Name, Simulated: n.Simulated, KeyHash: n.KeyHash, CertificateExpiresAt: &n.CertificateExpiresAt})
	if err != nil {
		return taken(err, "nodes_name", "node", n.Name)
	}
	return t.NodeChanged(ctx, n)
}

// NodeChanged tells readers of events that a node changed.
func (t *Tx) NodeChanged(ctx context.Context, n node.Node) error {
	return t.EventInsert(ctx, Event{Kind: "node.updated", ObjectKind: "node", ObjectID: n.ID, ObjectName: n.Name})
}

// NodeHello takes what an agent says of itself at the start of a session. An
// older incarnation, a removed node and a key that is not the registered one are
// refused.
func (t *Tx) NodeHello(ctx context.Context, n node.Node, keyHash []byte) error {
	inventory, err := writeInventory(n.Inventory)
	if err != nil {
		return err
	}
	row, err := t.q.NodeHello(ctx, query.NodeHelloParams{
		ID: n.ID, NodeEpoch: int64(n.Epoch), AgentVersion: n.AgentVersion, Inventory: inventory, KeyHash: keyHash,
		Cpus: int32(n.Capacity.CPUs), MemoryBytes: n.Capacity.MemoryBytes, DiskBytes: n.Capacity.DiskBytes,
	})
	if err == nil {
		n.Name = row.Name
		return t.NodeChanged(ctx, n)
	}
	if !errs.Is(one(err, "node", ""), errs.NotFound) {
		return pgtx.Map(err)
	}
	return t.helloRefused(ctx, n, keyHash)
}

// NodeRenewed records that a node has a new certificate, and gives its name. A
// removed node and a key that is not the registered one are refused.
func (t *Tx) NodeRenewed(ctx context.Context, n id.ID, keyHash []byte, expires time.Time) (name string, err error) {
	row, err := t.q.NodeRenewed(ctx, query.NodeRenewedParams{ID: n, KeyHash: keyHash, ExpiresAt: &expires})
	if err == nil {
		return row.Name, nil
	}
	if !errs.Is(one(err, "node", ""), errs.NotFound) {
		return "", pgtx.Map(err)
	}
	return "", t.helloRefused(ctx, node.Node{ID: n}, keyHash)
}

func (t *Tx) helloRefused(ctx context.Context, n node.Node, keyHash []byte) error {
	have, err := t.q.NodeEpoch(ctx, n.ID)
	switch {
	case err != nil:
		return one(err, "node", n.ID.String())
	case have.State == query.NodeStateRemoved:
		return errs.New(errs.NodeRemoved, "this node was removed from the cluster; to be a node again, its host joins anew with an empty folder")
	case string(have.KeyHash) != string(keyHash):
		return errs.New(errs.Forbidden, "this key is not the one the node is registered with")
	default:
		return errs.New(errs.StaleEpoch, "agent incarnation %d of this node has been seen; this is %d", have.NodeEpoch, n.Epoch)
	}
}

// NodeBeats records lease renewals, by node.
func (s *Store) NodeBeats(ctx context.Context, beats map[id.ID]int64) error {
	var p query.NodeBeatsParams
	for n, seq := range beats {
		p.Ids, p.Seqs = append(p.Ids, n), append(p.Seqs, seq)
	}
	return pgtx.Again(func() error {
		_, err := s.q.NodeBeats(ctx, p)
		return err
	})
}

// NodeLeases gives the last renewal number of every node.
func (s *Store) NodeLeases(ctx context.Context) (map[id.ID]int64, error) {
	rows, err := s.q.NodeLeases(ctx)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	out := make(map[id.ID]int64, len(rows))
	for _, r := range rows {
		out[r.ID] = r.LeaseSeq
	}
	return out, nil
}

// NodeSetState records what the operator decided; revision, unless nil, is what
// the caller believed.
func (t *Tx) NodeSetState(ctx context.Context, n node.Node, to node.State, revision *int64) error {
	rows, err := t.q.NodeSetState(ctx, query.NodeSetStateParams{ID: n.ID, State: query.NodeState(to), Revision: revision})
	if err == nil && rows == 0 {
		err = errs.New(errs.RevisionMismatch, "node %q is at revision %d: somebody changed it; read it again", n.Name, n.Revision)
	}
	if err == nil && to == node.Removed {
		err = t.q.NodePoolsDrop(ctx, n.ID)
	}
	if err != nil {
		return pgtx.Map(err)
	}
	return t.NodeChanged(ctx, n)
}

// NodeEpoch is the newest incarnation seen of a node's agent.
func (s *Store) NodeEpoch(ctx context.Context, n id.ID) (gen.NodeEpoch, error) {
	row, err := s.q.NodeEpoch(ctx, n)
	return gen.NodeEpoch(row.NodeEpoch), one(err, "node", n.String())
}

// NodeUsageDrift lists nodes whose counters disagree with their VMs, one
// sentence each: a bug, never to be seen.
func (s *Store) NodeUsageDrift(ctx context.Context) ([]string, error) {
	rows, err := s.q.NodeUsageDrift(ctx)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	var out []string
	for _, r := range rows {
		out = append(out, driftText(r))
	}
	return out, nil
}
