package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// The documents of a migration.

type predictionDoc struct {
	Bytes      int64                 `json:"bytes"`
	Rate       int64                 `json:"rate,omitempty"`
	RateWhy    string                `json:"rate_why,omitempty"`
	DurationMS int64                 `json:"duration_ms,omitempty"`
	DowntimeMS int64                 `json:"downtime_ms,omitempty"`
	DirtyRate  int64                 `json:"dirty_rate,omitempty"`
	Converges  migration.Convergence `json:"converges,omitempty"`
	DirtyFrom  migration.Knowledge   `json:"dirty_from,omitempty"`
	SampledAt  *time.Time            `json:"sampled_at,omitempty"`
}

func predictionDocOf(p migration.Prediction) predictionDoc {
	d := predictionDoc{
		Bytes: p.Bytes, Rate: p.Rate, RateWhy: p.RateWhy, DurationMS: p.Duration.Milliseconds(), DowntimeMS: p.Downtime.Milliseconds(),
		DirtyRate: p.DirtyRate, Converges: p.Converges, DirtyFrom: p.From,
	}
	if !p.SampledAt.IsZero() {
		d.SampledAt = &p.SampledAt
	}
	return d
}

func (d predictionDoc) prediction() migration.Prediction {
	p := migration.Prediction{
		Bytes: d.Bytes, Rate: d.Rate, RateWhy: d.RateWhy, Duration: milliseconds(d.DurationMS), Downtime: milliseconds(d.DowntimeMS),
		Changes: migration.Changes{DirtyRate: d.DirtyRate, From: d.DirtyFrom}, Converges: d.Converges,
	}
	if d.DirtyRate > 0 && d.DirtyFrom == "" { // of the program before this one
		p.From = migration.LastMove
	}
	if d.SampledAt != nil {
		p.SampledAt = *d.SampledAt
	}
	return p
}

type optionsDoc struct {
	BytesPerSecond int64  `json:"bytes_per_second,omitempty"`
	DowntimeMS     int64  `json:"downtime_ms,omitempty"`
	AutoConverge   bool   `json:"auto_converge,omitempty"`
	Compression    string `json:"compression,omitempty"`
	Channels       int    `json:"channels,omitempty"`
	PatienceMS     int64  `json:"patience_ms,omitempty"`
	TimeoutMS      int64  `json:"timeout_ms,omitempty"`
	MaxDowntimeMS  int64  `json:"max_downtime_ms,omitempty"`
	OnStall        string `json:"on_stall,omitempty"`
	// Warm: is it a warm one? The rest is of those.
	Warm       bool              `json:"warm,omitempty"`
	Cutover    migration.Cutover `json:"cutover,omitempty"`
	CutoverAt  *time.Time        `json:"cutover_at,omitempty"`
	IntervalMS int64             `json:"interval_ms,omitempty"`
}

func optionsDocOf(o migration.Options) optionsDoc {
	d := optionsDoc{
		BytesPerSecond: o.BytesPerSecond, DowntimeMS: o.Downtime.Milliseconds(), AutoConverge: o.AutoConverge, Compression: o.Compression,
		Channels: o.Channels, PatienceMS: o.Patience.Milliseconds(), TimeoutMS: o.Timeout.Milliseconds(),
		MaxDowntimeMS: o.MaxDowntime.Milliseconds(), OnStall: string(o.OnStall),
		Cutover: o.Cutover, IntervalMS: o.Interval.Milliseconds(),
	}
	if !o.CutoverAt.IsZero() {
		d.CutoverAt = &o.CutoverAt
	}
	return d
}

func (d optionsDoc) options() migration.Options {
	o := migration.Options{
		BytesPerSecond: d.BytesPerSecond, Downtime: milliseconds(d.DowntimeMS), AutoConverge: d.AutoConverge, Compression: d.Compression,
		Channels: d.Channels, Patience: milliseconds(d.PatienceMS), Timeout: milliseconds(d.TimeoutMS),
		MaxDowntime: milliseconds(d.MaxDowntimeMS), OnStall: migration.Steps(d.OnStall),
		Cutover: d.Cutover, Interval: milliseconds(d.IntervalMS),
	}
	if d.CutoverAt != nil {
		o.CutoverAt = *d.CutoverAt
	}
	return o
}

// progressDoc is merged into what is on record: a rate of changes that is not known now
// was, before the guest was halted.
type progressDoc struct {
	MemoryMoved        int64 `json:"memory_moved"`
	MemoryRemaining    int64 `json:"memory_remaining"`
	DisksMoved         int64 `json:"disks_moved"`
	DisksRemaining     int64 `json:"disks_remaining"`
	Rate               int64 `json:"rate"`
	DirtyRate          int64 `json:"dirty_rate,omitempty"`
	ExpectedDowntimeMS int64 `json:"expected_downtime_ms"`
	Throttle           int   `json:"throttle"`
	// Warm is of a warm one.
	Warm *warmthDoc `json:"warm,omitempty"`
}

type warmthDoc struct {
	Rounds     int64 `json:"rounds"`
	LastBytes  int64 `json:"last_bytes"`
	LastTookMS int64 `json:"last_took_ms"`
	Changed    int64 `json:"changed"`
	Cut        bool  `json:"cut,omitempty"`
	Cuts       int64 `json:"cuts,omitempty"`
}

func warmthDocOf(w *migration.Warmth) *warmthDoc {
	if w == nil {
		return nil
	}
	return &warmthDoc{Rounds: w.Rounds, LastBytes: w.LastBytes, LastTookMS: w.LastTook.Milliseconds(), Changed: w.Changed, Cut: w.Cut, Cuts: w.Cuts}
}

func (d *warmthDoc) warmth() *migration.Warmth {
	if d == nil {
		return nil
	}
	return &migration.Warmth{Rounds: d.Rounds, LastBytes: d.LastBytes, LastTook: milliseconds(d.LastTookMS), Changed: d.Changed, Cut: d.Cut, Cuts: d.Cuts}
}

type phaseDoc struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// migrationDocs are a row's documents, as they are stored.
type migrationDocs struct {
	prediction, phases, options, progress, steps []byte
}

func (d migrationDocs) read(m *migration.Migration) error {
	var prediction predictionDoc
	var options optionsDoc
	var progress progressDoc
	var phases []phaseDoc
	var steps []stepDoc
	err := errors.Join(json.Unmarshal(d.prediction, &prediction), json.Unmarshal(d.phases, &phases),
		json.Unmarshal(d.options, &options), json.Unmarshal(d.progress, &progress), json.Unmarshal(d.steps, &steps))
	if err != nil {
		return err
	}
	m.Predicted, m.Options = prediction.prediction(), options.options()
	for _, p := range phases {
		m.Phases = append(m.Phases, migration.Phase(p))
	}
	for _, s := range steps {
		m.Escalations = append(m.Escalations, s.escalation())
	}
	m.Progress = migration.Progress{
		MemoryMoved: progress.MemoryMoved, MemoryRemaining: progress.MemoryRemaining, DisksMoved: progress.DisksMoved, DisksRemaining: progress.DisksRemaining,
		Rate: progress.Rate, DirtyRate: progress.DirtyRate, ExpectedDowntime: milliseconds(progress.ExpectedDowntimeMS), Throttle: progress.Throttle,
		Warm: progress.Warm.warmth(),
	}
	if options.Warm {
		m.Kind = migration.Warm
	}
	return nil
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// MigrationPhase notes that a phase has begun, unless it had, and how many bytes were
// moved so far.
func (t *Tx) MigrationPhase(ctx context.Context, m id.ID, phase string, bytes int64) error {
	return pgtx.Map(t.q.MigrationPhase(ctx, query.MigrationPhaseParams{ID: m, Phase: phase, Bytes: bytes}))
}

// MigrationProgress notes how far a live migration is; readers of events hear of it when
// a phase begins. Of one that has ended it changes nothing.
func (t *Tx) MigrationProgress(ctx context.Context, m id.ID, p migration.Progress) error {
	doc, err := encode(progressDoc{
		MemoryMoved: p.MemoryMoved, MemoryRemaining: p.MemoryRemaining, DisksMoved: p.DisksMoved, DisksRemaining: p.DisksRemaining,
		Rate: p.Rate, DirtyRate: p.DirtyRate, ExpectedDowntimeMS: p.ExpectedDowntime.Milliseconds(), Throttle: p.Throttle,
		Warm: warmthDocOf(p.Warm),
	})
	if err != nil {
		return err
	}
	return pgtx.Map(t.q.MigrationProgress(ctx, query.MigrationProgressParams{ID: m, Phase: p.Phase, Bytes: p.Moved(), Progress: doc}))
}

// MigrationDowntime notes for how long a guest was halted; what is 0 stays as it was.
func (t *Tx) MigrationDowntime(ctx context.Context, m id.ID, d migration.Downtime) error {
	p := query.MigrationDowntimeParams{ID: m}
	for _, c := range []struct {
		at *(*int64)
		d  time.Duration
	}{{&p.Hypervisor, d.Hypervisor}, {&p.Seen, d.Seen}} {
		if c.d > 0 {
			ms := max(1, c.d.Milliseconds())
			*c.at = &ms
		}
	}
	return pgtx.Map(t.q.MigrationDowntime(ctx, p))
}

// MigrationDirtyRate is how fast a VM's guest changed memory when it was moved last, in
// bytes per second; 0 when nobody knows.
func (s *Store) MigrationDirtyRate(ctx context.Context, vm id.ID) (int64, error) {
	rate, err := s.q.MigrationDirtyRate(ctx, vm)
	return rate, pgtx.Map(err)
}

// MigrationDirtyRate is the same, read by the transaction.
func (t *Tx) MigrationDirtyRate(ctx context.Context, vm id.ID) (int64, error) {
	rate, err := t.q.MigrationDirtyRate(ctx, vm)
	return rate, pgtx.Map(err)
}

// MigrationSampled is what was sampled of a VM's guest when it was last to move, if it is the
// one that executes under an epoch; zero when it was not.
func (s *Store) MigrationSampled(ctx context.Context, vm id.ID, epoch gen.OwnerEpoch) (migration.Changes, error) {
	row, err := s.q.MigrationSampled(ctx, query.MigrationSampledParams{VmID: vm, Epoch: int64(epoch)})
	if errors.Is(err, pgx.ErrNoRows) {
		return migration.Changes{}, nil
	}
	return migration.Changes{DirtyRate: row.Rate, From: migration.Sampled, SampledAt: row.SampledAt}, pgtx.Map(err)
}

// MigrationQueue gives the migrations that take part of their nodes, or are to, in the order
// of their turns. Whose turn it is, nobody else decides until the transaction ends.
func (t *Tx) MigrationQueue(ctx context.Context) ([]migration.Queued, error) {
	if err := t.q.MigrationsLock(ctx); err != nil {
		return nil, pgtx.Map(err)
	}
	rows, err := t.q.MigrationsQueue(ctx)
	if err != nil {
		return nil, pgtx.Map(err)
	}
	var out []migration.Queued
	for _, r := range rows {
		out = append(out, migration.Queued{
			ID: r.ID, Source: migration.Place{Node: r.SourceNodeID, Name: r.Source}, Target: migration.Place{Node: r.TargetNodeID, Name: r.Target},
			MostOut: int(r.MigrationsOut), MostIn: int(r.MigrationsIn), Begun: r.BegunAt != nil,
		})
	}
	return out, nil
}

// MigrationBegin notes that a migration's turn has come.
func (t *Tx) MigrationBegin(ctx context.Context, m id.ID) error {
	return pgtx.Map(t.q.MigrationBegin(ctx, m))
}
