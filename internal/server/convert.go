package server

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/reconcile"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
)

// project is the only one there is yet.
const project = store.DefaultProject

func toVM(v vm.View) api.VM {
	in, a := v.Intent, vm.Appear(v)
	out := api.VM{
		Meta: api.Meta{
			Kind: "vm", ID: in.ID.String(), Name: in.Name, Project: project, Labels: in.Labels,
			Revision: int64(in.Revision), CreatedAt: in.CreatedAt.UTC(), UpdatedAt: in.UpdatedAt.UTC(),
		},
		Spec: api.VMSpec{
			CPUs: in.CPUs, MemoryBytes: api.Bytes(in.MemoryBytes), Image: in.ImageName, Power: power(in.PowerOn), Protected: in.Policy.Protected, RestartPolicy: string(in.Policy.Restart.OrNever()),
			Autostart: !in.Policy.ByHand, StartOrder: in.Policy.StartOrder, StartDelaySeconds: int64(in.Policy.StartDelay / time.Second), DrainPolicy: string(in.Policy.Drain.OrLive()),
			CPUWeight: in.Limits.Normal().CPUWeight, CPUCapPercent: in.Limits.CPUCapPercent,
			Disks: []api.VMDisk{}, NICs: []api.VMNIC{},
		},
		Status: api.VMStatus{
			State: string(a.State), Reason: a.Reason, Since: a.Since.UTC(), LastState: string(a.Last), OwnerEpoch: int64(in.Epoch),
		},
	}
	for _, d := range v.Volumes {
		out.Spec.Disks = append(out.Spec.Disks, api.VMDisk{ID: d.ID.String(), Slot: d.Slot, SizeBytes: api.Bytes(d.SizeBytes), Image: d.ImageName, Pool: d.PoolName, Limits: toDiskLimits(d.Limits)})
	}
	for _, n := range v.NICs {
		c := api.VMNIC{ID: n.ID.String(), MAC: n.MAC, Bridge: n.Bridge}
		for _, f := range n.Forwards {
			c.Forwards = append(c.Forwards, api.Forward(f))
		}
		out.Spec.NICs = append(out.Spec.NICs, c)
	}
	out.Spec.Machine = &api.VMMachine{Type: in.Hardware.Type, CPU: in.Hardware.CPU, Firmware: in.Hardware.Firmware}
	if c := in.CloudInit; c != nil {
		told := api.VMCloudInit(*c)
		out.Spec.CloudInit = &told
	}
	if in.SeedImage != nil {
		out.Spec.SeedImage = in.SeedImage.Name
	}
	if in.CDROM != nil {
		out.Spec.CDROM = in.CDROM.Name
	}
	vmStatus(v, &out.Status)
	return out
}

// toDiskLimits is nil for none.
func toDiskLimits(l vm.DiskLimits) *api.DiskLimits {
	if l == (vm.DiskLimits{}) {
		return nil
	}
	return &api.DiskLimits{
		IOPS: l.IOPS, ReadIOPS: l.ReadIOPS, WriteIOPS: l.WriteIOPS, BytesPerSecond: api.Bytes(l.BytesPerSecond),
		ReadBytesPerSecond: api.Bytes(l.ReadBytesPerSecond), WriteBytesPerSecond: api.Bytes(l.WriteBytesPerSecond),
	}
}

// fromDiskLimits is the way back.
func fromDiskLimits(l *api.DiskLimits) *vm.DiskLimits {
	if l == nil {
		return nil
	}
	return &vm.DiskLimits{
		IOPS: l.IOPS, ReadIOPS: l.ReadIOPS, WriteIOPS: l.WriteIOPS, BytesPerSecond: int64(l.BytesPerSecond),
		ReadBytesPerSecond: int64(l.ReadBytesPerSecond), WriteBytesPerSecond: int64(l.WriteBytesPerSecond),
	}
}

// diskLimits are none where none are given.
func diskLimits(l *api.DiskLimits) vm.DiskLimits {
	if given := fromDiskLimits(l); given != nil {
		return *given
	}
	return vm.DiskLimits{}
}

// fromMachine is the way back; nil says nothing.
func fromMachine(m *api.VMMachine) vm.Hardware {
	if m == nil {
		return vm.Hardware{}
	}
	return vm.Hardware{Type: m.Type, CPU: m.CPU, Firmware: m.Firmware}
}

// fromCloudInit is the way back.
func fromCloudInit(c *api.VMCloudInit) *vm.CloudInit {
	if c == nil {
		return nil
	}
	told := vm.CloudInit(*c)
	return &told
}

func vmStatus(v vm.View, s *api.VMStatus) {
	s.Restarts = toRestarts(v.Restarts)
	if o := v.Observed; o != nil {
		for _, a := range o.Addresses {
			s.Addresses = append(s.Addresses, a.String())
		}
		if f := o.Frozen; f != nil {
			s.Frozen = &api.VMFrozen{Until: f.Until.UTC(), Reason: f.Reason}
		}
	}
	if v.Node != nil {
		s.Node = v.Node.Name
	}
	if v.Job != nil {
		s.Job = v.Job.ID.String()
	}
	if p := v.Intent.Placement; p != nil && v.Intent.NodeID == nil {
		for _, n := range p.Nodes {
			s.Placement = append(s.Placement, api.PlacementReason{Node: n.Node, Reasons: n.Reasons})
		}
	}
}

// toRestarts is nil for what was neither restarted nor is to be.
func toRestarts(r vm.Restarts) *api.VMRestarts {
	if r.EndedAt.IsZero() {
		return nil
	}
	return &api.VMRestarts{
		Total: r.Total, InARow: r.InARow, Reason: r.Reason, EndedAt: r.EndedAt.UTC(), LastAt: utcOrNil(r.LastAt), NextAt: utcOrNil(r.NextAt), GaveUpAt: utcOrNil(r.GaveUpAt),
	}
}

func utcOrNil(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	u := at.UTC()
	return &u
}

func power(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func toNode(n node.Node) api.Node {
	i := n.Inventory
	out := api.Node{
		Meta: api.Meta{
			Kind: "node", ID: n.ID.String(), Name: n.Name, Revision: int64(n.Revision),
			CreatedAt: n.CreatedAt.UTC(), UpdatedAt: n.UpdatedAt.UTC(),
		},
		Spec: api.NodeSpec{Schedulable: n.State == node.Active, ShutdownPolicy: string(n.Shutdown), MigrationsOut: n.Migrations.Out, MigrationsIn: n.Migrations.In, MigrationBytesPerSecond: api.Bytes(n.Migrations.BytesPerSecond)},
		Status: api.NodeStatus{
			SeenAt: n.SeenAt.UTC(), Simulated: n.Simulated, NodeEpoch: int64(n.Epoch), AgentVersion: n.AgentVersion, VMs: n.VMs,
			Capacity: toResources(n.Capacity), Used: toResources(n.Used), StoragePools: toNodePools(n.Pools),
			Inventory: api.Inventory{
				Hostname: i.Hostname, Kernel: i.Kernel, OS: i.OS, CPUModel: i.CPUModel, CPUs: i.CPUs, MemoryBytes: api.Bytes(i.MemoryBytes),
				NUMA: []api.NUMANode{}, Disks: []api.HostDisk{}, HugePages: []api.HugePages{}, PCI: []api.PCIDevice{}, Interfaces: []api.HostInterface{}, Bridges: []api.HostBridge{}, Hypervisor: i.Hypervisor, HypervisorVersion: i.HypervisorVersion,
				Acceleration: i.Acceleration, AccelerationReason: i.AccelerationReason, MachineTypes: append([]string{}, i.MachineTypes...), CPUModels: append([]string{}, i.CPUModels...), Firmware: append([]string{}, i.Firmware...), LiveMigration: i.LiveMigration, WarmMigration: i.WarmMigration, Confinement: append([]string{}, i.Confinement...), Unconfined: append([]string{}, i.Unconfined...), Limits: append([]string{}, i.Limits...), ImageCacheBytes: api.Bytes(i.ImageCacheBytes),
			},
		},
	}
	if !n.CertificateExpiresAt.IsZero() {
		at := n.CertificateExpiresAt.UTC()
		out.Status.CertificateExpiresAt = &at
	}
	out.Status.State, out.Status.Reason = nodeState(n)
	if n.Held && n.Misbehaved == "" {
		out.Status.Reason = strings.TrimPrefix(out.Status.Reason+"; it is in recovery hold: its VMs are left as they are", "; ")
	}
	for _, m := range i.NUMA {
		out.Status.Inventory.NUMA = append(out.Status.Inventory.NUMA, api.NUMANode{ID: m.ID, CPUs: m.CPUs, MemoryBytes: api.Bytes(m.MemoryBytes)})
	}
	for _, d := range i.Disks {
		out.Status.Inventory.Disks = append(out.Status.Inventory.Disks, api.HostDisk{Name: d.Name, Model: d.Model, SizeBytes: api.Bytes(d.SizeBytes), Rotational: d.Rotational})
	}
	for _, h := range i.HugePages {
		out.Status.Inventory.HugePages = append(out.Status.Inventory.HugePages, api.HugePages{SizeBytes: api.Bytes(h.SizeBytes), Total: h.Total, Free: h.Free})
	}
	for _, p := range i.PCI {
		out.Status.Inventory.PCI = append(out.Status.Inventory.PCI, api.PCIDevice(p))
	}
	for _, n := range i.Interfaces {
		out.Status.Inventory.Interfaces = append(out.Status.Inventory.Interfaces, api.HostInterface{Name: n.Name, MAC: n.MAC, Up: n.Up, SpeedMbps: n.Speed, MTU: n.MTU})
	}
	for _, b := range i.Bridges {
		out.Status.Inventory.Bridges = append(out.Status.Inventory.Bridges, api.HostBridge(b))
	}
	return out
}

func nodeState(n node.Node) (state, reason string) {
	switch {
	case n.Misbehaved != "":
		return "quarantined", n.Misbehaved
	case !n.Reporting && n.SeenAt.IsZero():
		return "unknown", "it has not reported yet"
	case !n.Reporting:
		return "unknown", "it does not report: its lease has run out"
	case n.State == node.Cordoned:
		return "cordoned", "it keeps its VMs and takes no new ones"
	default:
		return "ready", ""
	}
}

func toResources(r node.Resources) api.Resources {
	return api.Resources{CPUs: r.CPUs, MemoryBytes: api.Bytes(r.MemoryBytes), DiskBytes: api.Bytes(r.DiskBytes)}
}

func toImage(i image.Image) api.Image {
	out := api.Image{
		Meta: api.Meta{
			Kind: "image", ID: i.ID.String(), Name: i.Name, Project: project, Revision: int64(i.Revision),
			CreatedAt: i.CreatedAt.UTC(), UpdatedAt: i.UpdatedAt.UTC(),
		},
		Spec:   api.ImageSpec{Type: string(i.Kind), Cmdline: i.Cmdline, Aliases: append([]string{}, i.Aliases...)},
		Status: api.ImageStatus{State: string(i.State), Files: []api.ImageFile{}, Job: text(i.JobID)},
	}
	for _, f := range i.Files {
		doc := api.ImageFile{
			Role: string(f.Role), SHA256: f.SHA256, SizeBytes: api.Bytes(f.SizeBytes), Format: f.Format, VirtualBytes: api.Bytes(f.VirtualBytes),
		}
		if f.Source != nil {
			doc.Source = &api.ImageSource{SHA256: f.Source.SHA256, Format: f.Source.Format}
		}
		out.Status.Files = append(out.Status.Files, doc)
	}
	return out
}

func toJob(j job.Job) api.Job {
	out := api.Job{
		Kind: "job", ID: j.ID.String(), Type: j.Kind,
		Target: api.JobTarget{Kind: j.TargetKind, ID: j.TargetID.String(), Name: j.TargetName},
		State:  string(j.State), Progress: j.Progress, WaitReason: j.WaitReason, Cancellable: j.Cancellable, CancelRequested: j.CancelRequested,
		CreatedBy: j.CreatedBy, Revision: int64(j.Revision), CreatedAt: j.CreatedAt.UTC(), StartedAt: j.StartedAt, FinishedAt: j.FinishedAt,
	}
	if j.ErrorCode != "" {
		out.Error = &api.JobError{Code: j.ErrorCode, Detail: j.ErrorMessage}
	}
	for _, s := range j.Steps {
		out.Steps = append(out.Steps, api.JobStep{Name: s.Name, State: s.State, Error: s.Error, StartedAt: s.StartedAt.UTC(), FinishedAt: s.FinishedAt})
	}
	return out
}

func toEvent(e event.Event) api.Event {
	return api.Event{
		Seq: e.Seq, Kind: e.Kind, Object: api.JobTarget{Kind: e.ObjectKind, ID: e.ObjectID.String(), Name: e.ObjectName},
		Job: text(e.JobID), Data: json.RawMessage(e.Data), At: e.At.UTC(),
	}
}

func text(u *id.ID) string {
	if u == nil {
		return ""
	}
	return u.String()
}

func toToken(k store.Token) api.Token {
	return api.Token{
		ID: k.ID.String(), Name: k.Name, Role: string(k.Role), CreatedBy: k.CreatedBy, CreatedAt: k.CreatedAt.UTC(),
		ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt, RevokedAt: k.RevokedAt,
	}
}

func toAudit(r audit.Record) api.AuditRecord {
	return api.AuditRecord{
		Seq: r.Seq, At: r.At.UTC(), Principal: r.Principal, Role: r.Role, Origin: r.Origin, Action: r.Action,
		Object: api.JobTarget{Kind: r.ObjectKind, ID: text(r.ObjectID), Name: r.ObjectName}, Job: text(r.JobID),
		Outcome: string(r.Outcome), RequestID: r.RequestID, Detail: r.Detail,
	}
}

func toTask(r reconcile.Report) api.Task {
	out := api.Task{
		Name: r.Name, PeriodMS: r.Period.Milliseconds(), LeaderOnly: r.LeaderOnly, Active: r.Active, Running: r.Running,
		Activations: r.Activations, Failures: r.Failures, LastTookMS: float64(r.LastTook) / float64(time.Millisecond), LastError: r.LastError,
	}
	if !r.LastStart.IsZero() {
		at := r.LastStart.UTC()
		out.LastStart = &at
	}
	if b, err := json.Marshal(r.LastStatus); err == nil {
		out.LastStatus = b
	}
	return out
}
