package store

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// vmList is the one query behind every view of VMs: intent, observation, node,
// job, disks and interfaces, as of one moment.
var vmList = lister{
	columns: `v.id, v.project_id, v.name, v.labels, v.cpus, v.memory_bytes, v.machine_type, v.cpu_model, v.firmware, v.image_id, coalesce(i.name, ''), v.cloud_init, v.seed_image_id, (SELECT c.name FROM images c WHERE c.id = v.seed_image_id), v.cdrom_image_id, (SELECT c.name FROM images c WHERE c.id = v.cdrom_image_id),
  v.protected, v.restart_policy, NOT v.autostart, v.start_order, v.start_delay_s, v.drain_policy, v.cpu_weight, v.cpu_cap_percent, v.power = 'on', v.node_id, v.owner_epoch, v.op_seq, v.reserved, v.deleting, v.placement,
  (SELECT l.name FROM nodes l WHERE l.id = v.lost_node_id), v.lost_at, v.lost_reason,
  v.failure_code, v.failure_message, v.failed_at, v.revision, v.created_at, v.updated_at,
  o.owner_epoch, o.node_id, o.node_epoch, o.report_seq, o.phase::text, o.reason, o.since, o.addresses, o.frozen_until, o.frozen_why,
  n.name, coalesce(n.seen_at, n.created_at),
  j.id, j.kind, j.target_id, j.cancellable AND NOT j.cancel_requested, j.state = 'needs_attention',
  coalesce(nullif(j.wait_reason, ''), j.error_message, ''), j.created_at,
  coalesce((SELECT jsonb_agg(jsonb_build_object('id', s.id, 'slot', s.slot, 'size', s.size_bytes,
      'limits', jsonb_build_array(s.iops, s.read_iops, s.write_iops, s.bytes_s, s.read_bytes_s, s.write_bytes_s),
      'image', s.image_id, 'image_name', (SELECT m.name FROM images m WHERE m.id = s.image_id),
      'pool', s.pool_id, 'pool_name', (SELECT p.name FROM storage_pools p WHERE p.id = s.pool_id)) ORDER BY s.slot)
    FROM storage_volumes s WHERE s.vm_id = v.id), '[]'),
  coalesce((SELECT jsonb_agg(jsonb_build_object('id', c.id, 'slot', c.slot, 'mac', c.mac, 'bridge', c.bridge, 'forwards', c.forwards) ORDER BY c.slot)
    FROM network_interfaces c WHERE c.vm_id = v.id), '[]'),
  r.total, r.in_a_row, r.reason, r.ended_at, r.last_at, r.next_at, r.gave_up_at`,
	from: `vms v
  LEFT JOIN images i ON i.id = v.image_id
  LEFT JOIN nodes n ON n.id = v.node_id
  LEFT JOIN LATERAL (SELECT * FROM instances x WHERE x.vm_id = v.id ORDER BY x.owner_epoch DESC LIMIT 1) o ON true
  LEFT JOIN vm_restarts r ON r.vm_id = v.id
  LEFT JOIN jobs j ON j.id = v.job_id`,
	filters: map[string]filter{
		"name":  named("v.name"),
		"node":  anyOf("n.name"),
		"image": anyOf("i.name"),
		"label": labelled("v.labels"),
	},
	sorts: map[string]sortKey{
		"name": byName("v.name"), "created_at": byID("v.id"),
		"cpus": byNumber("v.cpus"), "memory_bytes": byNumber("v.memory_bytes"), "node": byName("coalesce(n.name, '')"),
	},
	defaultSort: "name",
	idColumn:    "v.id",
}

// vmRow receives one row of vmList.
type vmRow struct {
	key    string
	in     vm.Intent
	labels []byte
	place  []byte
	told   []byte
	seed   cdRow
	cdrom  cdRow
	fail   struct {
		code, message *string
		at            *time.Time
	}
	lost struct {
		node   *string
		at     *time.Time
		reason string
	}
	seen struct {
		epoch     *gen.OwnerEpoch
		node      *id.ID
		nodeEpoch *gen.NodeEpoch
		seq       *gen.ReportSeq
		phase     *string
		reason    *string
		since     *time.Time
		addresses []netip.Addr
		frozen    *time.Time
		frozenWhy *string
	}
	node struct {
		name *string
		seen *time.Time
	}
	job struct {
		id, target      *id.ID
		kind, why       *string
		cancel, attends *bool
		created         *time.Time
	}
	volumes, nics []byte
	startDelay    int64 // seconds
	restarts      struct {
		total, inARow         *int
		reason                *string
		ended, last, next, up *time.Time
	}
}

// cdRow is a CD of a VM.
type cdRow struct {
	id   *id.ID
	name *string
}

func (r cdRow) cd() *vm.CD {
	if r.id == nil {
		return nil
	}
	return &vm.CD{ID: *r.id, Name: *r.name}
}

func (r *vmRow) targets() []any {
	in, s, j, e := &r.in, &r.seen, &r.job, &r.restarts
	return []any{
		&r.key, &in.ID, &in.ProjectID, &in.Name, &r.labels, &in.CPUs, &in.MemoryBytes, &in.Hardware.Type, &in.Hardware.CPU, &in.Hardware.Firmware, &in.ImageID, &in.ImageName, &r.told, &r.seed.id, &r.seed.name, &r.cdrom.id, &r.cdrom.name,
		&in.Policy.Protected, &in.Policy.Restart, &in.Policy.ByHand, &in.Policy.StartOrder, &r.startDelay, &in.Policy.Drain, &in.Limits.CPUWeight, &in.Limits.CPUCapPercent, &in.PowerOn, &in.NodeID, &in.Epoch, &in.OpSeq, &in.Reserved, &in.Deleting, &r.place, &r.lost.node, &r.lost.at, &r.lost.reason,
		&r.fail.code, &r.fail.message, &r.fail.at, &in.Revision, &in.CreatedAt, &in.UpdatedAt,
		&s.epoch, &s.node, &s.nodeEpoch, &s.seq, &s.phase, &s.reason, &s.since, &s.addresses, &s.frozen, &s.frozenWhy,
		&r.node.name, &r.node.seen,
		&j.id, &j.kind, &j.target, &j.cancel, &j.attends, &j.why, &j.created,
		&r.volumes, &r.nics,
		&e.total, &e.inARow, &e.reason, &e.ended, &e.last, &e.next, &e.up,
	}
}

// view turns the row into what Appear and Decide take. Whether the node reports
// is for the caller to judge.
func (r *vmRow) view() (vm.View, error) {
	v := vm.View{Intent: r.in}
	v.Intent.Policy.StartDelay = time.Duration(r.startDelay) * time.Second
	if r.fail.code != nil {
		v.Intent.Failure = &vm.Failure{Code: *r.fail.code, Message: *r.fail.message, At: *r.fail.at}
	}
	if r.lost.node != nil && r.lost.at != nil {
		v.Intent.Lost = &vm.Lost{Node: *r.lost.node, At: *r.lost.at, Reason: r.lost.reason}
	}
	v.Intent.SeedImage, v.Intent.CDROM = r.seed.cd(), r.cdrom.cd()
	v.Observed = r.observed()
	if r.in.NodeID != nil && r.node.name != nil {
		v.Node = &vm.NodeView{ID: *r.in.NodeID, Name: *r.node.name, SeenAt: *r.node.seen}
	}
	if j := r.job; j.id != nil {
		v.Job = &vm.JobView{
			ID: *j.id, Kind: *j.kind, Target: *j.target, Cancellable: *j.cancel, Attention: *j.attends, WaitReason: *j.why, CreatedAt: *j.created,
		}
	}
	if e := r.restarts; e.total != nil {
		v.Restarts = vm.Restarts{Total: *e.total, InARow: *e.inARow, Reason: *e.reason, EndedAt: *e.ended, LastAt: e.last, NextAt: e.next, GaveUpAt: e.up}
	}
	return v, r.documents(&v)
}

// observed is nil for what was never reported.
func (r *vmRow) observed() *vm.Observation {
	s := r.seen
	if s.epoch == nil {
		return nil
	}
	o := &vm.Observation{
		Epoch: *s.epoch, NodeID: *s.node, NodeEpoch: *s.nodeEpoch, Seq: *s.seq,
		Phase: vm.Phase(*s.phase), Reason: *s.reason, Since: *s.since, Addresses: s.addresses,
	}
	if s.frozen != nil {
		o.Frozen = &vm.Frozen{Until: *s.frozen, Reason: *s.frozenWhy}
	}
	return o
}

func (r *vmRow) documents(v *vm.View) error {
	var volumes []struct {
		ID   id.ID `json:"id"`
		Slot int   `json:"slot"`
		Size int64 `json:"size"`
		// of vm.DiskLimits, in its order
		Limits [6]int64 `json:"limits"`
		Image  *id.ID   `json:"image"`
		Name   string   `json:"image_name"`
		Pool   *id.ID   `json:"pool"`
		In     string   `json:"pool_name"`
	}
	var nics []struct {
		ID       id.ID        `json:"id"`
		Slot     int          `json:"slot"`
		MAC      string       `json:"mac"`
		Bridge   string       `json:"bridge"`
		Forwards []forwardDoc `json:"forwards"`
	}
	for dst, src := range map[any][]byte{&v.Intent.Labels: r.labels, &volumes: r.volumes, &nics: r.nics} {
		if err := json.Unmarshal(src, dst); err != nil {
			return errs.New(errs.Internal, "the record of VM %s is damaged", r.in.ID).Because(err)
		}
	}
	var err error
	v.Intent.Placement, err = readUnplaced(r.place)
	if err == nil {
		v.Intent.CloudInit, err = readCloudInit(r.told)
	}
	if err != nil {
		return errs.New(errs.Internal, "the record of VM %s is damaged", r.in.ID).Because(err)
	}
	for _, d := range volumes {
		v.Volumes = append(v.Volumes, vm.Volume{ID: d.ID, Slot: d.Slot, SizeBytes: d.Size, ImageID: d.Image, ImageName: d.Name, PoolID: d.Pool, PoolName: d.In, Limits: diskLimits(d.Limits)})
	}
	if l := v.Intent.Lost; l != nil {
		l.Pools = slices.Sorted(maps.Keys(v.Pools()))
	}
	for _, n := range nics {
		c := vm.NIC{ID: n.ID, Slot: n.Slot, MAC: n.MAC, Bridge: n.Bridge}
		for _, f := range n.Forwards {
			c.Forwards = append(c.Forwards, vm.Forward(f))
		}
		v.NICs = append(v.NICs, c)
	}
	return nil
}

func diskLimits(l [6]int64) vm.DiskLimits {
	return vm.DiskLimits{
		IOPS: l[0], ReadIOPS: l[1], WriteIOPS: l[2], BytesPerSecond: l[3], ReadBytesPerSecond: l[4], WriteBytesPerSecond: l[5],
	}
}

func scanVM(rows pgx.Rows) (vm.View, Next, error) {
	var r vmRow
	if err := rows.Scan(r.targets()...); err != nil {
		return vm.View{}, Next{}, err
	}
	v, err := r.view()
	return v, Next{Key: r.key, ID: r.in.ID}, err
}

// VMList gives a page of a project's VMs.
func (s *Store) VMList(ctx context.Context, project id.ID, p Page) ([]vm.View, *Next, error) {
	return listRows(ctx, s.pool, vmsOf(vmList), p, scanVM, project)
}

// VMListByState is VMList with a filter by state. j is what the
// caller judges of nodes.
func (s *Store) VMListByState(ctx context.Context, project id.ID, p Page, j Judged) ([]vm.View, *Next, error) {
	l := vmsOf(vmList)
	l.filters = maps.Clone(l.filters)
	l.filters["state"] = appearsAs(j)
	return listRows(ctx, s.pool, l, p, scanVM, project)
}

func vmsOf(l lister) lister {
	l.where = []string{"v.project_id = $1"}
	return l
}

// VMGet finds a project's VM by id or name.
func (s *Store) VMGet(ctx context.Context, project id.ID, ref string) (vm.View, error) {
	return vmGet(ctx, s.pool, project, ref)
}

// VMGet finds a VM and locks its intent until the transaction ends.
func (t *Tx) VMGet(ctx context.Context, project id.ID, ref string) (vm.View, error) {
	p := query.VMLockParams{ProjectID: project, Name: ref}
	if u, err := id.Parse(ref); err == nil {
		p.ID = &u
	}
	locked, err := t.q.VMLock(ctx, p)
	if err != nil {
		return vm.View{}, one(err, "VM", ref)
	}
	t.Now = locked.At
	return t.VMByID(ctx, locked.ID)
}

// VMByID finds a VM of any project, for the control plane's own use.
func (t *Tx) VMByID(ctx context.Context, v id.ID) (vm.View, error) {
	return vmWhere(ctx, t, v.String(), []string{"v.id = $1"}, v)
}

// VMByID finds a VM of any project, for the control plane's own use.
func (s *Store) VMByID(ctx context.Context, v id.ID) (vm.View, error) {
	return vmWhere(ctx, s.pool, v.String(), []string{"v.id = $1"}, v)
}

func vmGet(ctx context.Context, db querier, project id.ID, ref string) (vm.View, error) {
	if u, err := id.Parse(ref); err == nil {
		return vmWhere(ctx, db, ref, []string{"v.project_id = $1", "v.id = $2"}, project, u)
	}
	return vmWhere(ctx, db, ref, []string{"v.project_id = $1", "v.name = $2"}, project, ref)
}

func vmWhere(ctx context.Context, db querier, ref string, where []string, args ...any) (vm.View, error) {
	l := vmList
	l.where = where
	found, _, err := listRows(ctx, db, l, Page{Limit: 1}, scanVM, args...)
	if err == nil && len(found) == 0 {
		err = NotFound("VM", ref)
	}
	if err != nil {
		return vm.View{}, err
	}
	return found[0], nil
}
