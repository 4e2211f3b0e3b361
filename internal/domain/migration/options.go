package migration

import (
	"cmp"
	"fmt"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Options say how a VM that runs is moved. The zero value is a good one.
type Options struct {
	// BytesPerSecond bounds the rate of its memory, and that of its disks; 0 for no bound.
	BytesPerSecond int64
	// Downtime is for how long its guest may be halted at the end, and MaxDowntime for how
	// long when it does not come to its end otherwise.
	Downtime, MaxDowntime time.Duration
	// OnStall is what is done, in that order, when it does not come nearer to its end.
	OnStall Steps
	// AutoConverge slows its processors down while it changes memory faster than that is
	// sent.
	AutoConverge bool
	// Compression of memory: CompressionZstd, or empty for none.
	Compression string
	// Channels are so many connections at once for memory.
	Channels int
	// Patience is how long the end may take once the guest is halted, before the move is
	// given up and the guest goes on.
	Patience time.Duration
	// Timeout is how long it may take before the end begins; 0 for as long as what there is
	// to copy may reasonably take.
	Timeout time.Duration
	// Cutover is who says when a warm one comes to its end, CutoverAt when that is, if it is
	// known already, and Interval how long it rests between two rounds.
	Cutover   Cutover
	CutoverAt time.Time
	Interval  time.Duration
}

// CompressionZstd compresses memory by Zstandard.
const CompressionZstd = "zstd"

// ProfileWAN is a named set of options, for nodes with a slow network between them:
// compressed, the guest slowed down where it must be, and a second for the end.
const ProfileWAN = "wan"

// Defaults and bounds of options.
const (
	DefaultDowntime = 300 * time.Millisecond
	// DefaultMaxDowntime, or the downtime, where that is longer.
	DefaultMaxDowntime = time.Second
	DefaultChannels    = 2
	DefaultPatience    = 30 * time.Second

	MinRate     = unit.MiB
	MinDowntime = time.Millisecond
	MaxDowntime = 30 * time.Second
	MaxChannels = 16
	MinPatience = time.Second
	MaxPatience = 10 * time.Minute
	MinTimeout  = 10 * time.Second
	MaxTimeout  = 7 * 24 * time.Hour
)

// wan is what ProfileWAN fills in.
var wan = Options{Compression: CompressionZstd, AutoConverge: true, Downtime: time.Second}

// Empty tells whether nothing was asked for.
func (o Options) Empty() bool { return o == Options{} }

// with fills in what is not said.
func (o Options) with(other Options) Options {
	fill(&o.BytesPerSecond, other.BytesPerSecond)
	fill(&o.Downtime, other.Downtime)
	fill(&o.MaxDowntime, other.MaxDowntime)
	fill(&o.OnStall, other.OnStall)
	fill(&o.AutoConverge, other.AutoConverge)
	fill(&o.Compression, other.Compression)
	fill(&o.Channels, other.Channels)
	fill(&o.Patience, other.Patience)
	fill(&o.Timeout, other.Timeout)
	fill(&o.Interval, other.Interval)
	return o
}

func fill[T comparable](at *T, value T) {
	var none T
	if *at == none {
		*at = value
	}
}

// complete fills the profile and the defaults in.
func (o Options) complete(profile string) Options {
	if profile == ProfileWAN {
		o = o.with(wan)
	}
	if o.Downtime == 0 && o.MaxDowntime > 0 {
		o.Downtime = min(DefaultDowntime, o.MaxDowntime)
	}
	o = o.with(Options{Downtime: DefaultDowntime, OnStall: DefaultSteps, Channels: DefaultChannels, Patience: DefaultPatience})
	o.MaxDowntime = max(cmp.Or(o.MaxDowntime, DefaultMaxDowntime), o.Downtime)
	return o
}

// Slows tells whether the guest may be slowed down.
func (o Options) Slows() bool { return o.AutoConverge || o.OnStall.Has(Throttle) }

// GiveUp is after how long a move of so many bytes is given up, before its guest is
// halted: what was asked for, or what the slowest network that serves at all may take,
// twice.
func (o Options) GiveUp(bytes int64) time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	rate := slowest
	if o.BytesPerSecond > 0 {
		rate = min(rate, o.BytesPerSecond)
	}
	return min(10*time.Minute+2*seconds(bytes, rate), MaxTimeout)
}

// slowest is the rate, in bytes per second, below which a network serves nobody.
const slowest int64 = 10 * unit.MiB

// seconds is how long so many bytes take at a rate.
func seconds(bytes, rate int64) time.Duration {
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}

// bounds tells what of the options nobody can do. What is zero is a default.
func (o Options) bounds() []bound {
	outside := func(d, least, most time.Duration) bool { return d != 0 && (d < least || d > most) }
	return []bound{
		{o.BytesPerSecond != 0 && o.BytesPerSecond < MinRate, errs.OutOfRange, "/options/bytes_per_second", "at least " + unit.FormatBytes(MinRate) + ", or absent for no bound", o.BytesPerSecond},
		{outside(o.Downtime, MinDowntime, MaxDowntime), errs.OutOfRange, "/options/downtime_ms", "1 to 30000", o.Downtime},
		{outside(o.MaxDowntime, max(MinDowntime, o.Downtime), MaxDowntime), errs.OutOfRange, "/options/max_downtime_ms", "1 to 30000, and no less than downtime_ms", o.MaxDowntime},
		{!o.OnStall.Valid(), errs.InvalidField, "/options/on_stall", "of throttle, downtime and give_up, each once and give_up last, or wait alone", o.OnStall},
		{outside(o.Patience, MinPatience, MaxPatience), errs.OutOfRange, "/options/patience_seconds", "1 to 600", o.Patience},
		{outside(o.Timeout, MinTimeout, MaxTimeout), errs.OutOfRange, "/options/timeout_seconds", "10 to 604800", o.Timeout},
		{o.Channels < 0 || o.Channels > MaxChannels, errs.OutOfRange, "/options/channels", fmt.Sprintf("1 to %d", MaxChannels), o.Channels},
		{o.Compression != "" && o.Compression != CompressionZstd, errs.InvalidField, "/options/compression", CompressionZstd + ", or absent for none", o.Compression},
	}
}
