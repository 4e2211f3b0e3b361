package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// VMInsert records a new VM's intent, held by the job that creates it.
func (t *Tx) VMInsert(ctx context.Context, v vm.View, job id.ID) error {
	in := v.Intent
	labels, err := encode(nonNil(in.Labels))
	if err != nil {
		return err
	}
	told, err := writeCloudInit(in.CloudInit)
	if err != nil {
		return err
	}
	power := query.VmPowerOff
	if in.PowerOn {
		power = query.VmPowerOn
	}
	err = t.q.VMInsert(ctx, query.VMInsertParams{
		ID: in.ID, ProjectID: in.ProjectID, Name: in.Name, Labels: labels,
		Cpus: int32(in.CPUs), MemoryBytes: in.MemoryBytes, ImageID: in.ImageID, CloudInit: told, SeedImageID: imageOf(in.SeedImage), CdromImageID: imageOf(in.CDROM),
		MachineType: in.Hardware.Type, CpuModel: in.Hardware.CPU, Firmware: in.Hardware.Firmware, Protected: in.Policy.Protected, RestartPolicy: string(in.Policy.Restart.OrNever()),
		Autostart: !in.Policy.ByHand, StartOrder: int32(in.Policy.StartOrder), StartDelayS: int32(in.Policy.StartDelay / time.Second), DrainPolicy: string(in.Policy.Drain.OrLive()),
		CpuWeight: int32(in.Limits.Normal().CPUWeight), CpuCapPercent: int32(in.Limits.CPUCapPercent), Power: power, JobID: &job,
	})
	if err != nil {
		return taken(err, "vms_project_id_name_key", "VM", in.Name)
	}
	for _, d := range v.Volumes {
		if err := t.volumeInsert(ctx, in, d); err != nil {
			return err
		}
	}
	for _, n := range v.NICs {
		if err := t.nicInsert(ctx, in.ID, n); err != nil {
			return err
		}
	}
	return t.vmEvent(ctx, in.ID, "vm.created", in, &job)
}

func imageOf(cd *vm.CD) *id.ID {
	if cd == nil {
		return nil
	}
	return &cd.ID
}

// VMCDROM records what is in a VM's CD drive; nil for nothing.
func (t *Tx) VMCDROM(ctx context.Context, in vm.Intent, cd *vm.CD) error {
	if err := t.q.VMCDROM(ctx, query.VMCDROMParams{ID: in.ID, CdromImageID: imageOf(cd)}); err != nil {
		return pgtx.Map(err)
	}
	return t.VMChanged(ctx, in, nil)
}

func nonNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func (t *Tx) nicInsert(ctx context.Context, owner id.ID, n vm.NIC) error {
	docs := make([]forwardDoc, 0, len(n.Forwards))
	for _, f := range n.Forwards {
		docs = append(docs, forwardDoc(f))
	}
	forwards, err := encode(docs)
	if err != nil {
		return err
	}
	return pgtx.Map(t.q.NICInsert(ctx, query.NICInsertParams{
		ID: n.ID, VmID: owner, Slot: int32(n.Slot), Mac: n.MAC, Bridge: n.Bridge, Forwards: forwards,
	}))
}

func (t *Tx) vmEvent(ctx context.Context, v id.ID, kind string, in vm.Intent, job *id.ID) error {
	return t.EventInsert(ctx, Event{
		ProjectID: &in.ProjectID, Kind: kind, ObjectKind: "vm", ObjectID: v, ObjectName: in.Name, JobID: job,
	})
}

// VMChanged tells readers of events that a VM changed.
func (t *Tx) VMChanged(ctx context.Context, in vm.Intent, job *id.ID) error {
	return t.vmEvent(ctx, in.ID, "vm.updated", in, job)
}

// VMHold takes a VM for a job and gives the job's number on it. errs.VMBusy when
// another job holds it.
func (t *Tx) VMHold(ctx context.Context, in vm.Intent, job id.ID) (opSeq int64, err error) {
	opSeq, err = t.q.VMHold(ctx, query.VMHoldParams{ID: in.ID, JobID: &job})
	if err != nil {
		if errs.Is(one(err, "VM", in.Name), errs.NotFound) {
			return 0, errs.New(errs.VMBusy, "VM %q was taken by another job just now", in.Name)
		}
		return 0, pgtx.Map(err)
	}
	return opSeq, nil
}

// VMFree ends a job's hold, with whatever is sent next. A failure stays with the VM
// until the next success.
func (t *Tx) VMFree(ctx context.Context, v, job id.ID, failure *errs.Error) error {
	p := query.VMFreeParams{ID: v, JobID: &job}
	if failure != nil {
		code := string(failure.Code)
		p.Code, p.Message = &code, &failure.Message
	}
	return pgtx.Map(t.later().VMFree(ctx, p))
}

// VMFreeAll is VMFree for jobs that have succeeded, each with its VM.
func (t *Tx) VMFreeAll(ctx context.Context, vms, jobs []id.ID) error {
	return pgtx.Map(t.later().VMFreeAll(ctx, query.VMFreeAllParams{Ids: vms, Jobs: jobs}))
}

// VMPlace puts a VM on a node and counts what it takes there. False when the
// node has no room any more, or the VM has a node already.
func (t *Tx) VMPlace(ctx context.Context, v vm.View, node id.ID) (bool, error) {
	if lacks, err := t.lacksPools(ctx, v.Intent.ID, len(v.Pools()) > 0, node); err != nil || lacks {
		return false, err
	}
	fits, err := t.q.NodeReserve(ctx, reserve(v, node, v.DiskBytes(), true))
	if err != nil || fits == 0 {
		return false, pgtx.Map(err)
	}
	n, err := t.q.VMPlace(ctx, query.VMPlaceParams{ID: v.Intent.ID, NodeID: &node})
	if err == nil && n == 0 {
		err = errs.New(errs.Conflict, "VM %q has a node already", v.Intent.Name)
	}
	if err != nil {
		return false, pgtx.Map(err)
	}
	return true, t.VMChanged(ctx, v.Intent, nil)
}

// lacksPools tells whether a node cannot use what a VM has of its disks in storage pools,
// as it is now.
func (t *Tx) lacksPools(ctx context.Context, v id.ID, some bool, node id.ID) (bool, error) {
	if !some {
		return false, nil
	}
	n, err := t.q.NodeLacksPools(ctx, query.NodeLacksPoolsParams{VmID: v, NodeID: node})
	return n > 0, pgtx.Map(err)
}

// VMSettle puts a VM that does not run on a node and counts its disks there. False
// when the node has no room, or takes no new VMs.
func (t *Tx) VMSettle(ctx context.Context, v vm.View, node id.ID) (bool, error) {
	fits, err := t.q.NodeReserve(ctx, query.NodeReserveParams{ID: node, DiskBytes: v.DiskBytes(), NewVm: true})
	if err != nil || fits == 0 {
		return false, pgtx.Map(err)
	}
	n, err := t.q.VMSettle(ctx, query.VMSettleParams{ID: v.Intent.ID, NodeID: &node})
	if err == nil && n == 0 {
		err = errs.New(errs.Conflict, "VM %q has a node already", v.Intent.Name)
	}
	return err == nil, pgtx.Map(err)
}

func reserve(v vm.View, node id.ID, disk int64, fresh bool) query.NodeReserveParams {
	return query.NodeReserveParams{
		ID: node, Cpus: int32(v.Intent.CPUs), MemoryBytes: v.Intent.MemoryBytes, DiskBytes: disk, NewVm: fresh,
	}
}

// VMUnplace takes a VM off its node and gives back what it took there, as the
// row tells, not as the caller remembers. Twice is no error.
func (t *Tx) VMUnplace(ctx context.Context, v vm.View) error {
	took, err := t.q.VMUnplace(ctx, v.Intent.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return pgtx.Map(err)
	}
	return pgtx.Map(t.q.NodeRelease(ctx, query.NodeReleaseParams{
		ID: took.NodeID, Cpus: took.Cpus, MemoryBytes: took.MemoryBytes, DiskBytes: took.DiskBytes,
	}))
}

// VMAdmit decides a new incarnation of a VM on its node: CPU and memory are counted
// there unless they are, it is wanted on, its epoch rises, and its board is one
// version from now on. It gives the intent with that. errs.NotFound when it has no
// node, errs.NoNodeFits when that has no room. With hold, a VM that no job holds is
// taken for that one too, as by VMHold.
func (t *Tx) VMAdmit(ctx context.Context, v vm.View, hold *id.ID) (vm.Intent, error) {
	in := v.Intent
	got, err := t.q.VMAdmit(ctx, query.VMAdmitParams{ID: in.ID, Hold: hold})
	if !errors.Is(err, pgx.ErrNoRows) {
		in.Epoch, in.Hardware.Type = gen.OwnerEpoch(got.OwnerEpoch), got.MachineType
		return in, pgtx.Map(err)
	}
	now, err := t.VMByID(ctx, in.ID)
	if err != nil {
		return in, err
	}
	if now.Node == nil {
		return in, NotFound("placed VM", in.Name)
	}
	return in, errs.New(errs.NoNodeFits, "node %q, which has the disks of VM %q, has no CPU or memory left for it", now.Node.Name, now.Intent.Name)
}

// VMUnreserve gives back a stopped VM's CPU and memory. Twice is no error.
func (t *Tx) VMUnreserve(ctx context.Context, v vm.View) error {
	took, err := t.q.VMUnreserve(ctx, v.Intent.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return pgtx.Map(err)
	}
	return pgtx.Map(t.q.NodeRelease(ctx, query.NodeReleaseParams{ID: took.NodeID, Cpus: took.Cpus, MemoryBytes: took.MemoryBytes}))
}

// VMExplain keeps with the VM why no node fits.
func (t *Tx) VMExplain(ctx context.Context, v id.ID, why vm.Unplaced) error {
	b, err := writeUnplaced(why)
	if err != nil {
		return err
	}
	return pgtx.Map(t.q.VMExplain(ctx, query.VMExplainParams{ID: v, Placement: b}))
}

// VMSetPower records what the user wants.
func (t *Tx) VMSetPower(ctx context.Context, v id.ID, on bool) error {
	p := query.VMSetPowerParams{ID: v, Power: query.VmPowerOff}
	if on {
		p.Power = query.VmPowerOn
	}
	return pgtx.Map(t.q.VMSetPower(ctx, p))
}

// VMRaiseEpoch decides a new incarnation.
func (t *Tx) VMRaiseEpoch(ctx context.Context, v id.ID) (gen.OwnerEpoch, error) {
	n, err := t.q.VMRaiseEpoch(ctx, v)
	return gen.OwnerEpoch(n), one(err, "placed VM", v.String())
}

// VMSetDeleting marks a VM as going away for good.
func (t *Tx) VMSetDeleting(ctx context.Context, v id.ID) error {
	return pgtx.Map(t.q.VMSetDeleting(ctx, v))
}

// VMDelete removes a VM's row and everything that hangs on it, and gives back
// what it took of its node.
func (t *Tx) VMDelete(ctx context.Context, v vm.View, job *id.ID) error {
	if err := t.VMUnplace(ctx, v); err != nil {
		return err
	}
	n, err := t.q.VMDelete(ctx, v.Intent.ID)
	if err != nil || n == 0 {
		return pgtx.Map(err)
	}
	return t.vmEvent(ctx, v.Intent.ID, "vm.deleted", v.Intent, job)
}

// VMUpdate writes what changes of a VM: name, labels, size, what its guest finds, policy. in.Revision is the one the
// caller has seen. What a VM without a process takes of its node is not counted,
// so that its size is free to change.
func (t *Tx) VMUpdate(ctx context.Context, in vm.Intent, was string) error {
	b, err := encode(nonNil(in.Labels))
	if err != nil {
		return err
	}
	told, err := writeCloudInit(in.CloudInit)
	if err != nil {
		return err
	}
	n, err := t.q.VMUpdate(ctx, query.VMUpdateParams{
		ID: in.ID, Name: in.Name, Labels: b, Cpus: int32(in.CPUs), MemoryBytes: in.MemoryBytes, CloudInit: told, SeedImageID: imageOf(in.SeedImage),
		MachineType: in.Hardware.Type, CpuModel: in.Hardware.CPU, Firmware: in.Hardware.Firmware, Protected: in.Policy.Protected, RestartPolicy: string(in.Policy.Restart.OrNever()),
		Autostart: !in.Policy.ByHand, StartOrder: int32(in.Policy.StartOrder), StartDelayS: int32(in.Policy.StartDelay / time.Second), DrainPolicy: string(in.Policy.Drain.OrLive()),
		CpuWeight: int32(in.Limits.Normal().CPUWeight), CpuCapPercent: int32(in.Limits.CPUCapPercent), Revision: int64(in.Revision),
	})
	if err != nil {
		return taken(err, "vms_project_id_name_key", "VM", in.Name)
	}
	if n == 0 {
		return errs.New(errs.RevisionMismatch, "VM %q is at revision %d: somebody changed it; read it again", was, in.Revision)
	}
	e := Event{ProjectID: &in.ProjectID, Kind: "vm.updated", ObjectKind: "vm", ObjectID: in.ID, ObjectName: in.Name}
	if was != in.Name {
		e.Data = map[string]any{"renamed_from": was}
	}
	return t.EventInsert(ctx, e)
}

// VMsHeldOn lists the VMs of a node that a job holds, and those on their way from it or to it.
func (t *Tx) VMsHeldOn(ctx context.Context, node id.ID) ([]id.ID, error) {
	ids, err := t.q.VMsHeldOn(ctx, node)
	return ids, pgtx.Map(err)
}
