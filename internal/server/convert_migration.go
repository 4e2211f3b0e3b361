package server

import (
	"math"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/migration"
)

func toMigrationRequest(b api.VMMigrate) migration.Request {
	r := migration.Request{Node: b.Node, Reason: b.Reason, Kind: migration.Kind(b.Kind), Profile: b.Profile, Priority: b.Priority}
	if o := b.Options; o != nil {
		r.Options = migration.Options{
			BytesPerSecond: int64(o.BytesPerSecond), Downtime: duration(o.DowntimeMS, time.Millisecond), AutoConverge: o.AutoConverge,
			MaxDowntime: duration(o.MaxDowntimeMS, time.Millisecond), OnStall: migration.StepsOf(o.OnStall),
			Compression: o.Compression, Channels: o.Channels,
			Patience: duration(o.PatienceSeconds, time.Second), Timeout: duration(o.TimeoutSeconds, time.Second),
			Cutover: migration.Cutover(o.Cutover), Interval: duration(o.IntervalSeconds, time.Second),
		}
		if o.CutoverAt != nil {
			r.Options.CutoverAt = o.CutoverAt.UTC()
		}
	}
	return r
}

// duration is so many of a unit, or as long as there is.
func duration(n int64, unit time.Duration) time.Duration {
	most := math.MaxInt64 / int64(unit)
	return time.Duration(min(max(n, -most), most)) * unit
}

func toMigrationOptions(k migration.Kind, o migration.Options) *api.MigrationOptions {
	if !k.Executing() {
		return nil
	}
	out := &api.MigrationOptions{
		BytesPerSecond: api.Bytes(o.BytesPerSecond), DowntimeMS: o.Downtime.Milliseconds(), AutoConverge: o.AutoConverge,
		MaxDowntimeMS: o.MaxDowntime.Milliseconds(), OnStall: o.OnStall.Names(),
		Compression: o.Compression, Channels: o.Channels,
		PatienceSeconds: int64(o.Patience / time.Second), TimeoutSeconds: int64(o.Timeout / time.Second),
		Cutover: string(o.Cutover), IntervalSeconds: int64(o.Interval / time.Second),
	}
	if !o.CutoverAt.IsZero() {
		at := o.CutoverAt.UTC()
		out.CutoverAt = &at
	}
	return out
}

func toPrediction(p migration.Prediction) api.MigrationPrediction {
	out := api.MigrationPrediction{
		Bytes: api.Bytes(p.Bytes), BytesPerSecond: api.Bytes(p.Rate), Assumption: p.RateWhy, Seconds: p.Duration.Round(time.Millisecond).Seconds(),
		DowntimeMS: p.Downtime.Milliseconds(), DirtyBytesPerSecond: api.Bytes(p.DirtyRate), Converges: string(p.Converges),
		DirtyFrom: string(p.From),
	}
	if !p.SampledAt.IsZero() {
		at := p.SampledAt.UTC()
		out.SampledAt = &at
	}
	return out
}

func toPlan(p migration.Plan) *api.MigrationPlan {
	out := &api.MigrationPlan{
		Type: string(p.Kind), Source: p.Source.Name, Bytes: api.Bytes(p.Bytes), Predicted: toPrediction(p.Prediction),
		Options: toMigrationOptions(p.Kind, p.Options), Reach: string(p.Reach), Notes: p.Notes, Candidates: []api.MigrationCandidate{},
	}
	for _, d := range p.Disks {
		k := api.MigrationDisk{Slot: d.Slot, SizeBytes: api.Bytes(d.SizeBytes), Action: "moves", Pool: d.PoolName}
		if d.PoolID != nil {
			k.Action = "stays"
		}
		out.Disks = append(out.Disks, k)
	}
	for _, c := range p.Ranked {
		out.Candidates = append(out.Candidates, api.MigrationCandidate{Node: c.Name, Score: c.Score})
	}
	if len(p.Ranked) > 0 {
		out.Target = p.Target().Name
	}
	for _, r := range p.Rejected {
		out.Rejected = append(out.Rejected, api.RejectedNode{Node: r.Name, Reasons: r.Reasons})
	}
	return out
}

func toMigration(m migration.Migration) api.Migration {
	out := api.Migration{
		Kind: "migration", ID: m.ID.String(), VM: api.JobTarget{Kind: "vm", ID: m.VM.String(), Name: m.VMName},
		Type: string(m.Kind), State: string(m.State), Reason: m.Reason, Source: m.Source.Name, Target: m.Target.Name,
		OwnerEpoch: int64(m.SwappedEpoch), PredictedBytes: api.Bytes(m.Predicted.Bytes), BytesMoved: api.Bytes(m.BytesMoved),
		Predicted: toPrediction(m.Predicted), Options: toMigrationOptions(m.Kind, m.Options), Progress: toProgress(m),
		DowntimeMS: m.Downtime.Hypervisor.Milliseconds(), DowntimeSeenMS: m.Downtime.Seen.Milliseconds(), Priority: m.Priority, Relayed: m.Relayed, WaitReason: m.Waits, ShareBytesPerSecond: api.Bytes(m.Share),
		BegunAt: utcOrNil(m.BegunAt), CutoverAt: utcOrNil(m.CutoverAt), Phases: []api.MigrationPhase{},
		CreatedBy: m.CreatedBy, Revision: int64(m.Revision), CreatedAt: m.CreatedAt.UTC(), FinishedAt: utcOrNil(m.FinishedAt),
	}
	for _, p := range m.Phases {
		out.Phases = append(out.Phases, api.MigrationPhase{Name: p.Name, At: p.At.UTC()})
	}
	for _, e := range m.Escalations {
		out.Steps = append(out.Steps, api.MigrationStep{
			Step: string(e.Step), Stall: string(e.Stall), Reason: e.Reason, ThrottlePercent: e.Throttle, DowntimeMS: e.Downtime.Milliseconds(), At: e.At.UTC(),
		})
	}
	if m.Failure != nil {
		out.Error = &api.JobError{Code: string(m.Failure.Code), Detail: m.Failure.Message}
	}
	return out
}

func toProgress(m migration.Migration) *api.MigrationProgress {
	if !m.Kind.Executing() {
		return nil
	}
	p := m.Progress
	out := &api.MigrationProgress{
		MemoryMoved: api.Bytes(p.MemoryMoved), MemoryRemaining: api.Bytes(p.MemoryRemaining), DisksMoved: api.Bytes(p.DisksMoved), DisksRemaining: api.Bytes(p.DisksRemaining),
		BytesPerSecond: api.Bytes(p.Rate), DirtyBytesPerSecond: api.Bytes(p.DirtyRate), ExpectedDowntimeMS: p.ExpectedDowntime.Milliseconds(), ThrottlePercent: p.Throttle,
	}
	if w := p.Warm; w != nil {
		out.Warm = &api.MigrationWarmth{
			Rounds: w.Rounds, LastBytes: api.Bytes(w.LastBytes), LastSeconds: w.LastTook.Seconds(), ChangedBytes: api.Bytes(w.Changed), Cut: w.Cut, Cuts: w.Cuts,
		}
	}
	return out
}
