package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/recovery"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Causes of a hold.
const (
	// CauseRestored: 'novacron db restore' put an older database back.
	CauseRestored = "restored"
	// CauseNodes: so many nodes are ahead that it is the database that is behind.
	CauseNodes = "nodes"
	// CauseAhead: the node told of more than the database knows.
	CauseAhead = "ahead"
	// CauseMisbehaved: the node did what no agent does; it is in quarantine.
	CauseMisbehaved = "misbehaved"
)

// Recovery is what is held, and why.
type Recovery struct {
	// Cause of the hold of the whole cluster; empty when it is not held.
	Cause  string
	Reason string
	Since  time.Time
	// RestoredAt and BackupOf are of the last restore; nil when there was none.
	RestoredAt, BackupOf *time.Time
	// Plan was confirmed last, by whom and when; empty when none ever was.
	Plan        string
	ConfirmedBy string
	ConfirmedAt *time.Time
	// Nodes that are held by themselves.
	Nodes []HeldNode
}

// HeldNode is a node in recovery hold.
type HeldNode struct {
	ID     id.ID
	Name   string
	Cause  string
	Reason string
	Since  time.Time
	// Misbehaved, unless empty, is what it is in quarantine for: no server speaks with
	// it.
	Misbehaved string
}

// RecoveryGet reads what is held.
func (s *Store) RecoveryGet(ctx context.Context) (Recovery, error) { return recoveryGet(ctx, s.q) }

func recoveryGet(ctx context.Context, q *query.Queries) (Recovery, error) {
	row, err := q.RecoveryGet(ctx)
	if err != nil {
		return Recovery{}, pgtx.Map(err)
	}
	r := Recovery{
		Reason: row.Reason, RestoredAt: row.RestoredAt, BackupOf: row.BackupOf, Plan: row.Plan,
		ConfirmedBy: row.ConfirmedBy, ConfirmedAt: row.ConfirmedAt,
	}
	if row.Cause != nil && row.Since != nil {
		r.Cause, r.Since = *row.Cause, *row.Since
	}
	nodes, err := q.RecoveryNodes(ctx)
	for _, n := range nodes {
		r.Nodes = append(r.Nodes, HeldNode{n.NodeID, n.Name, n.Cause, n.Reason, n.Since, n.Misbehaved})
	}
	return r, pgtx.Map(err)
}

// RecoveryLock reads what is held and serializes confirmations.
func (t *Tx) RecoveryLock(ctx context.Context) (Recovery, error) {
	if _, err := t.q.RecoveryLock(ctx); err != nil {
		return Recovery{}, pgtx.Map(err)
	}
	return recoveryGet(ctx, t.q)
}

// RecoveryHoldNode puts a node into hold; false when it is already.
func (t *Tx) RecoveryHoldNode(ctx context.Context, node id.ID, cause, reason string) (bool, error) {
	n, err := t.q.RecoveryHoldNode(ctx, query.RecoveryHoldNodeParams{NodeID: node, Cause: cause, Reason: reason})
	return n > 0, pgtx.Map(err)
}

// RecoveryShare tells how many nodes are ahead of the database, of how many that
// have ever reported.
func (t *Tx) RecoveryShare(ctx context.Context) (ahead, nodes int64, err error) {
	row, err := t.q.RecoveryShare(ctx)
	return row.Ahead, row.Nodes, pgtx.Map(err)
}

// RecoveryHoldAll puts the whole cluster into hold; false when it is already.
func (t *Tx) RecoveryHoldAll(ctx context.Context, cause, reason string) (bool, error) {
	n, err := t.q.RecoveryHoldAll(ctx, query.RecoveryHoldAllParams{Cause: cause, Reason: reason})
	return n > 0, pgtx.Map(err)
}

// RecoveryChanged tells readers of events that a hold began or ended.
func (t *Tx) RecoveryChanged(ctx context.Context, cluster id.ID, data map[string]any) error {
	return t.EventInsert(ctx, Event{Kind: "recovery.updated", ObjectKind: "cluster", ObjectID: cluster, Data: data})
}

// RecoveryConfirmed ends the hold of the whole cluster, and of the nodes given.
func (t *Tx) RecoveryConfirmed(ctx context.Context, plan, by string, release []id.ID) error {
	if err := t.q.RecoveryConfirm(ctx, query.RecoveryConfirmParams{Plan: plan, By: by}); err != nil {
		return pgtx.Map(err)
	}
	return pgtx.Map(t.q.RecoveryRelease(ctx, release))
}

// LeftVM is a VM that an operator left alone on its node.
type LeftVM struct {
	VM, Node id.ID
	Name     string
	By       string
	At       time.Time
}

// RecoveryLeft lists what was left alone.
func (s *Store) RecoveryLeft(ctx context.Context) ([]LeftVM, error) {
	rows, err := s.q.RecoveryLeft(ctx)
	var out []LeftVM
	for _, r := range rows {
		out = append(out, LeftVM{r.VmID, r.NodeID, r.Name, r.LeftBy, r.LeftAt})
	}
	return out, pgtx.Map(err)
}

// RecoveryLeave leaves a VM alone from now on; RecoveryForget takes that back.
func (t *Tx) RecoveryLeave(ctx context.Context, v recovery.VMPlan, by string) error {
	return pgtx.Map(t.q.RecoveryLeave(ctx, query.RecoveryLeaveParams{VmID: v.VM, NodeID: v.Node, Name: v.Name, LeftBy: by}))
}

// RecoveryForget takes back that a VM is left alone.
func (t *Tx) RecoveryForget(ctx context.Context, v id.ID) error {
	return pgtx.Map(t.q.RecoveryForget(ctx, v))
}

// ClusterFollow lets nodes of another incarnation follow to this one; ClusterFollows
// lists those that may.
func (t *Tx) ClusterFollow(ctx context.Context, incarnation id.ID) error {
	_, err := t.q.ClusterFollow(ctx, incarnation)
	return pgtx.Map(err)
}

// ClusterFollows lists the incarnations whose nodes may follow to this one.
func (s *Store) ClusterFollows(ctx context.Context) ([]id.ID, error) {
	out, err := s.q.ClusterFollows(ctx)
	return out, pgtx.Map(err)
}

// JobsOpen lists the jobs that have not ended.
func (s *Store) JobsOpen(ctx context.Context) ([]recovery.Job, error) {
	rows, err := s.q.JobsOpen(ctx)
	out := make([]recovery.Job, 0, len(rows))
	for _, r := range rows {
		out = append(out, recovery.Job{ID: r.ID, Kind: r.Kind, TargetKind: r.TargetKind, Target: r.TargetID, TargetName: r.TargetName, OpSeq: r.OpSeq})
	}
	return out, pgtx.Map(err)
}

// MACs lists every address that was given.
func (s *Store) MACs(ctx context.Context) (map[string]bool, error) {
	rows, err := s.q.MACsTaken(ctx)
	out := make(map[string]bool, len(rows))
	for _, m := range rows {
		out[m] = true
	}
	return out, pgtx.Map(err)
}

// NodesLock locks nodes against placements until the transaction ends.
func (t *Tx) NodesLock(ctx context.Context, nodes []id.ID) error {
	_, err := t.q.NodesLock(ctx, nodes)
	return pgtx.Map(err)
}

// NodesRecount counts anew what VMs take of nodes, which are locked. What runs is
// counted, whether there is room for it or not.
func (t *Tx) NodesRecount(ctx context.Context, nodes []id.ID) error {
	return pgtx.Map(t.q.NodesRecount(ctx, nodes))
}

// VMAdopt writes what its node has of a VM that is in the database.
func (t *Tx) VMAdopt(ctx context.Context, project id.ID, p recovery.VMPlan) error {
	a := p.Adoption
	in := vm.Intent{ID: p.VM, ProjectID: project, Name: a.Name}
	err := t.q.VMAdopt(ctx, query.VMAdoptParams{
		ID: p.VM, OwnerEpoch: int64(a.Fence.Epoch), OpSeq: a.Fence.OpSeq, Power: power(a.PowerOn), NodeID: p.Node,
		Reserved: a.PowerOn, Cpus: int32(a.CPUs), MemoryBytes: a.MemoryBytes, MachineType: a.Hardware.Type, CpuModel: a.Hardware.CPU, Firmware: a.Hardware.Firmware,
	})
	if err != nil {
		return pgtx.Map(err)
	}
	for _, d := range a.Resized {
		if _, err := t.q.VolumeResize(ctx, query.VolumeResizeParams{ID: d.ID, VmID: p.VM, SizeBytes: d.SizeBytes}); err != nil {
			return pgtx.Map(err)
		}
	}
	for _, d := range a.Gone {
		if _, err := t.q.VolumeDelete(ctx, query.VolumeDeleteParams{ID: d.ID, VmID: p.VM}); err != nil {
			return pgtx.Map(err)
		}
	}
	if err := t.adoptParts(ctx, project, p); err != nil {
		return err
	}
	return t.VMChanged(ctx, in, nil)
}

// VMRecreate makes a VM of what its node has.
func (t *Tx) VMRecreate(ctx context.Context, project id.ID, p recovery.VMPlan) error {
	a := p.Adoption
	err := t.q.VMRecreate(ctx, query.VMRecreateParams{
		ID: p.VM, ProjectID: project, Name: a.Name, Cpus: int32(a.CPUs), MemoryBytes: a.MemoryBytes, MachineType: a.Hardware.Type, CpuModel: a.Hardware.CPU, Firmware: a.Hardware.Firmware, ImageID: a.ImageID, SeedImageID: a.SeedImageID, CdromImageID: a.CDROMID,
		Power: power(a.PowerOn), NodeID: &p.Node, OwnerEpoch: int64(a.Fence.Epoch), OpSeq: a.Fence.OpSeq, Reserved: a.PowerOn,
	})
	if err != nil {
		return taken(err, "vms_project_id_name_key", "VM", a.Name)
	}
	for _, n := range a.NICs {
		if err := t.nicInsert(ctx, p.VM, n); err != nil {
			return err
		}
	}
	if err := t.adoptParts(ctx, project, p); err != nil {
		return err
	}
	return t.vmEvent(ctx, p.VM, "vm.created", vm.Intent{ID: p.VM, ProjectID: project, Name: a.Name}, nil)
}

func power(on bool) query.VmPower {
	if on {
		return query.VmPowerOn
	}
	return query.VmPowerOff
}

// adoptParts writes disks that the database lacks, and what was observed.
func (t *Tx) adoptParts(ctx context.Context, project id.ID, p recovery.VMPlan) error {
	for _, d := range p.Adoption.Volumes {
		err := t.q.VolumeInsert(ctx, query.VolumeInsertParams{
			ID: d.ID, ProjectID: project, VmID: p.VM, Slot: int32(d.Slot), SizeBytes: d.SizeBytes, ImageID: d.ImageID, PoolID: d.PoolID,
		})
		if err != nil {
			return pgtx.Map(err)
		}
	}
	o := p.Adoption.Observed
	if o == nil || o.Epoch <= 0 {
		return nil
	}
	return pgtx.Map(t.q.InstancePut(ctx, query.InstancePutParams{
		VmID: p.VM, OwnerEpoch: int64(o.Epoch), NodeID: p.Node, NodeEpoch: int64(o.NodeEpoch), ReportSeq: int64(o.Seq),
		Phase: query.VmPhase(o.Phase), Reason: o.Reason, Since: orEpoch(o.Since),
	}))
}

// VMMiss gives a VM up that its node has no more.
func (t *Tx) VMMiss(ctx context.Context, project id.ID, p recovery.VMPlan, reason string) error {
	err := t.q.VMMiss(ctx, query.VMMissParams{
		ID: p.VM, OwnerEpoch: int64(p.Fence.Epoch), OpSeq: p.Fence.OpSeq, NodeID: &p.Node, Reason: reason,
	})
	if err != nil {
		return pgtx.Map(err)
	}
	return t.VMChanged(ctx, vm.Intent{ID: p.VM, ProjectID: project, Name: p.Name}, nil)
}

// VMLetGoOf ends the hold of a job on whatever it holds.
func (t *Tx) VMLetGoOf(ctx context.Context, job id.ID) error {
	return pgtx.Map(t.q.VMLetGoOf(ctx, &job))
}

// ImageRecreate makes an image of which only its files are known.
func (t *Tx) ImageRecreate(ctx context.Context, i image.Image) error {
	if err := t.ImageInsert(ctx, i); err != nil {
		return err
	}
	for _, f := range i.Files {
		if err := t.ImageFilePut(ctx, i, f); err != nil {
			return err
		}
	}
	return t.ImageSetState(ctx, i, image.Ready, nil)
}

// refuse words why something is refused in a hold.
func (r Recovery) refuse(what string) error {
	return errs.New(errs.RecoveryHold, "%s: 'novacron recovery show' lists what differs, and 'novacron recovery confirm' ends the hold", what)
}

// On tells whether what is on a node, or on none, is held, and why.
func (r Recovery) On(node *id.ID) error {
	if r.Cause != "" {
		return r.refuse("the cluster is in recovery hold: " + r.Reason)
	}
	if node == nil {
		return nil
	}
	for _, n := range r.Nodes {
		if n.ID == *node {
			if n.Misbehaved != "" {
				return quarantined(n.Name, n.Misbehaved)
			}
			return r.refuse("node " + n.Name + " is in recovery hold: " + n.Reason)
		}
	}
	return nil
}

// String says on one line what is held; empty when nothing is.
func (r Recovery) String() string {
	if r.Cause != "" {
		return "the cluster is in recovery hold: " + r.Reason
	}
	var out []string
	for _, n := range r.Nodes[:min(len(r.Nodes), mostNamed)] {
		if n.Misbehaved != "" {
			out = append(out, "node "+n.Name+" is in quarantine: "+n.Misbehaved)
			continue
		}
		out = append(out, "node "+n.Name+" is in recovery hold: "+n.Reason)
	}
	if more := len(r.Nodes) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("%d more nodes are", more))
	}
	return strings.Join(out, "; ")
}

// mostNamed of the nodes that are held are named on one line.
const mostNamed = 5

// Held tells whether anything is held.
func (r Recovery) Held() bool { return r.Cause != "" || len(r.Nodes) > 0 }

// VMFences reads what the database knows of VMs, but for those that it does not
// have.
func (s *Store) VMFences(ctx context.Context, vms []id.ID) (map[id.ID]vm.Intent, error) {
	rows, err := s.q.VMFences(ctx, vms)
	out := make(map[id.ID]vm.Intent, len(rows))
	for _, r := range rows {
		out[r.ID] = vm.Intent{ID: r.ID, Name: r.Name, NodeID: r.NodeID, Epoch: gen.OwnerEpoch(r.OwnerEpoch), OpSeq: r.OpSeq}
	}
	return out, pgtx.Map(err)
}

// NodeRecreate records a node that joined after the backup was made; false when
// its id or name is taken.
func (t *Tx) NodeRecreate(ctx context.Context, n node.Node) (bool, error) {
	rows, err := t.q.NodeRecreate(ctx, query.NodeRecreateParams{ID: n.ID, Name: n.Name, Simulated: n.Simulated, KeyHash: n.KeyHash})
	if err != nil || rows == 0 {
		return false, pgtx.Map(err)
	}
	return true, t.NodeChanged(ctx, n)
}
