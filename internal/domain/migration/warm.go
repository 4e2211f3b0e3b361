package migration

import (
	"cmp"
	"slices"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Cutover is who says when the guest of a warm migration is halted for the end.
type Cutover string

// The ways.
const (
	// Automatic: as soon as the last round is expected to be short.
	Automatic Cutover = "auto"
	// Manual: when a person says so, or at the time that was given.
	Manual Cutover = "manual"
)

// Bounds and defaults of a warm migration.
const (
	// ShortRound is how long the last round may take, as far as that can be foretold, for the
	// end to begin by itself.
	ShortRound      = 3 * time.Second
	DefaultInterval = 30 * time.Second
	MinInterval     = time.Second
	MaxInterval     = 24 * time.Hour
)

// Anew is what is on record where a warm migration has begun to copy from the start again: what
// was copied is lost with one of the two ends.
const Anew Step = "anew"

// MaxAnew is how often it does so before it is given up.
const MaxAnew = 10

// Warmth is how far the rounds of a warm migration are.
type Warmth struct {
	// Rounds that have come to their end, and what the last of them took: bytes, and how
	// long.
	Rounds, LastBytes int64
	LastTook          time.Duration
	// Changed since then, in bytes, as far as is known.
	Changed int64
	// Cut: is there no way to the target now? Cuts is how often there was none.
	Cut  bool
	Cuts int64
}

// Expected is how long the last round would take now, at the pace of the one before.
func (w Warmth) Expected() time.Duration {
	if w.LastBytes <= 0 || w.Changed <= 0 {
		return 0
	}
	return time.Duration(float64(w.Changed) / float64(w.LastBytes) * float64(w.LastTook))
}

// CutsOver tells whether a warm migration is to come to its end now, or what it waits for. Told
// is for when a person has said so, nil for nobody yet.
func (o Options) CutsOver(w Warmth, told *time.Time, now time.Time) (bool, string) {
	switch {
	case w.Cut:
		return false, "its target cannot be reached from its node: its disks are copied on when it can"
	case w.Rounds == 0:
		return false, "its disks are copied for the first time, while it runs"
	case told != nil && !now.Before(*told):
		return true, ""
	case told != nil:
		return false, "its disks are copied again and again until its cutover at " + told.UTC().Format(time.RFC3339)
	case o.Cutover == Manual:
		return false, "its disks are copied again and again until its cutover: novacron vm cutover"
	case w.Expected() > ShortRound:
		return false, "its disks are copied again: " + unit.FormatBytes(w.Changed) + " have changed, too much for a short stop"
	}
	return true, ""
}

// warmly fills the profile and the defaults of a warm migration in.
func (o Options) warmly(profile string) Options {
	if profile == ProfileWAN {
		fill(&o.Compression, wan.Compression)
	}
	if o.Cutover == "" {
		o.Cutover = Automatic
		if !o.CutoverAt.IsZero() {
			o.Cutover = Manual
		}
	}
	return o.with(Options{Channels: DefaultChannels, Interval: DefaultInterval, Timeout: MaxTimeout})
}

// warmBounds tells what of a request only a warm migration can do, or cannot.
func (r Request) warmBounds() []bound {
	o := r.Options
	asks := Options{Cutover: o.Cutover, CutoverAt: o.CutoverAt, Interval: o.Interval}
	lives := Options{OnStall: o.OnStall, AutoConverge: o.AutoConverge, Downtime: o.Downtime, MaxDowntime: o.MaxDowntime}
	known := slices.Contains([]Cutover{"", Automatic, Manual}, o.Cutover)
	interval := cmp.Or(o.Interval, DefaultInterval)
	return []bound{
		{!asks.Empty() && r.Kind != Warm, errs.InvalidField, "/kind", "warm, for a cutover and an interval are of warm migrations", r.Kind},
		{!lives.Empty() && r.Kind == Warm, errs.InvalidField, "/kind", "live, for downtimes, stalls and slower processors are of live migrations", r.Kind},
		{!known, errs.InvalidField, "/options/cutover", "auto or manual, or absent for auto", o.Cutover},
		{o.Cutover == Automatic && !o.CutoverAt.IsZero(), errs.InvalidField, "/options/cutover", "manual, or absent, where there is a time for it", o.Cutover},
		{interval < MinInterval || interval > MaxInterval, errs.OutOfRange, "/options/interval_seconds", "1 to 86400", o.Interval},
	}
}
