package migration

import (
	"fmt"
	"slices"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Prediction is what a plan expects.
type Prediction struct {
	// Bytes to move, at most; of a live one without what changes meanwhile.
	Bytes int64
	// Rate, in bytes per second, that the rest assumes, and RateWhy, where that is from.
	Rate    int64
	RateWhy string
	// Duration of all; of a live one at least so long, unless it converges.
	Duration time.Duration
	// Downtime of the guest; the whole duration of a cold one.
	Downtime time.Duration
	// Changes are what is known of how fast the guest changes memory.
	Changes
	// Converges tells whether a live one is expected to come to its end by itself.
	Converges Convergence
}

// Changes are how fast a guest changes its memory.
type Changes struct {
	// DirtyRate in bytes per second, of what changes within a second.
	DirtyRate int64
	// From is who says so; empty when nobody knows.
	From Knowledge
	// SampledAt is when it was so, of what was sampled.
	SampledAt time.Time
}

// Knowledge is where something is known from.
type Knowledge string

// The ways to know how fast a guest changes its memory.
const (
	// Sampled: its memory was looked at for a second, now.
	Sampled Knowledge = "sampled"
	// LastMove: it did when it was moved last.
	LastMove Knowledge = "last_move"
)

// Known tells whether anybody knows.
func (c Changes) Known() bool { return c.From != "" }

// ChangedWhenMoved is what the last move of a guest tells, 0 when there was none.
func ChangedWhenMoved(rate int64) Changes {
	if rate == 0 {
		return Changes{}
	}
	return Changes{DirtyRate: rate, From: LastMove}
}

// words say it.
func (c Changes) words() string {
	rate := unit.FormatBytes(c.DirtyRate) + "/s of memory"
	if c.From == LastMove {
		return "changed " + rate + " when it was moved last"
	}
	return "changes " + rate + " now"
}

// Convergence is what is expected of a live migration.
type Convergence string

// The expectations. Of a cold migration there is none.
const (
	Converging Convergence = "yes"
	Diverging  Convergence = "no"
	Slowed     Convergence = "slowed" // its guest is slowed down until it does
	Unknowable Convergence = "unknown"
)

// assumedRate is of a network that nobody knows: one gigabit per second.
const assumedRate = 1_000_000_000 / 8

// predict says what the move to the first node that suits takes. Disks count as large as
// they may become: how much of them is written nobody but their node knows.
func predict(p *Plan, v vm.View, nodes []node.Node, source node.Node, changes Changes) {
	p.Bytes = v.DiskBytes()
	if p.Kind == Live || suspended(v) {
		p.Bytes += v.Intent.MemoryBytes
	}
	p.Rate, p.RateWhy = rateBetween(source, nodes, p.Ranked)
	if p.Kind != Live {
		p.Duration = seconds(p.Bytes, p.Rate)
		p.Downtime = p.Duration
		return
	}
	if b := p.Options.BytesPerSecond; b > 0 && b < p.Rate {
		p.Rate, p.RateWhy = b, "as it is bounded"
	}
	p.Changes, p.Downtime, p.Converges = changes, p.Options.Downtime, converges(changes, p.Rate, p.Options.Slows())
	memory := seconds(v.Intent.MemoryBytes, p.Rate)
	if halted(source.Inventory) {
		p.Downtime, p.Converges = memory, Converging
		p.Duration = seconds(v.DiskBytes(), p.Rate) + memory
		return
	}
	if p.Converges == Converging {
		// each round sends what changed during the one before
		memory = time.Duration(float64(memory) / (1 - float64(changes.DirtyRate)/float64(p.Rate)))
	}
	p.Duration = seconds(v.DiskBytes(), p.Rate) + memory
}

func converges(c Changes, rate int64, slows bool) Convergence {
	switch {
	case !c.Known():
		return Unknowable
	case c.DirtyRate < rate:
		return Converging
	case slows:
		return Slowed
	default:
		return Diverging
	}
}

// rateBetween is what the slower of two nodes' fastest links carries.
func rateBetween(source node.Node, nodes []node.Node, ranked []scheduler.Ranked) (rate int64, why string) {
	a := linkRate(source.Inventory)
	b := int64(0)
	if len(ranked) > 0 {
		b = linkRate(byID(nodes, ranked[0].Node).Inventory)
	}
	rate, why = min(a, b), "what the slower of the two nodes' networks carries at most"
	if a == 0 || b == 0 {
		rate, why = assumedRate, "assumed: the nodes do not tell how fast their networks are"
	}
	limits := []node.Node{source}
	if len(ranked) > 0 {
		limits = append(limits, byID(nodes, ranked[0].Node))
	}
	for _, n := range limits {
		if most := n.Migrations.BytesPerSecond; most > 0 && most < rate {
			rate, why = most, "what node "+n.Name+" gives to all of its migrations together"
		}
	}
	return rate, why
}

func byID(nodes []node.Node, n id.ID) node.Node {
	i := slices.IndexFunc(nodes, func(c node.Node) bool { return c.ID == n })
	if i < 0 {
		return node.Node{}
	}
	return nodes[i]
}

// linkRate is what a host's fastest interface with a carrier carries, in bytes per second;
// 0 when not known.
func linkRate(i node.Inventory) (fastest int64) {
	for _, n := range i.Interfaces {
		if n.Up {
			fastest = max(fastest, n.Speed*1_000_000/8)
		}
	}
	return fastest
}

// halted tells whether guests of a host are halted while all of their memory is sent: its
// hypervisor would not see all that they write meanwhile.
func halted(i node.Inventory) bool {
	return i.Hypervisor == "qemu" && i.Acceleration == "tcg" && Older(i.HypervisorVersion, "9")
}

// patientWith is the patience for what is halted for so long.
func patientWith(asked, halt time.Duration) time.Duration {
	if asked > 0 {
		return asked
	}
	return min(max(DefaultPatience, 4*halt), MaxPatience)
}

// explainHalt notes that a guest is halted for long.
func explainHalt(p *Plan, source node.Inventory) {
	p.Notes = append(p.Notes, fmt.Sprintf("its processors are emulated by QEMU %s, which does not see all that they write while memory is sent: it is halted for all of that, about %s", source.HypervisorVersion, p.Downtime.Round(time.Millisecond)))
	if p.Downtime > p.Options.Patience {
		p.Notes = append(p.Notes, fmt.Sprintf("that is longer than the patience, %s: it will be given up, and go on where it is; give it more patience, or suspend it first", p.Options.Patience))
	}
}

// explain notes what of a live migration a person should know before.
func explain(p *Plan, r Request) {
	if p.Kind != Live {
		if r.Profile != "" || !r.Options.Empty() {
			p.Notes = append(p.Notes, "nothing of it executes: what was asked for of a live migration does not apply")
		}
		return
	}
	rate := func(n int64) string { return unit.FormatBytes(n) + "/s" }
	switch p.Converges {
	case Unknowable:
		p.Notes = append(p.Notes, "how fast its guest changes memory is not known: while that is faster than "+rate(p.Rate)+" it does not come to its end"+unlessSlowed(p.Options)+", and is given up after "+p.Options.GiveUp(p.Bytes).Round(time.Second).String())
	case Diverging:
		p.Notes = append(p.Notes, fmt.Sprintf("its guest %s, and %s can be sent: it does not come to its end; let it be slowed down, or stop or suspend it", p.words(), rate(p.Rate)))
	case Slowed:
		p.Notes = append(p.Notes, fmt.Sprintf("its guest %s, and %s can be sent: its processors are slowed down until it comes to its end", p.words(), rate(p.Rate)))
	case Converging:
	}
}

func unlessSlowed(o Options) string {
	if o.Slows() {
		return " unless it is slowed down"
	}
	return ""
}

// predictWarm says what a warm move to the first node that suits takes: one round of all disks,
// and a halt for the last one and for memory.
func predictWarm(p *Plan, v vm.View, nodes []node.Node, source node.Node) {
	p.Bytes = v.DiskBytes() + v.Intent.MemoryBytes
	p.Rate, p.RateWhy = rateBetween(source, nodes, p.Ranked)
	if b := p.Options.BytesPerSecond; b > 0 && b < p.Rate {
		p.Rate, p.RateWhy = b, "as it is bounded"
	}
	p.Downtime = ShortRound + seconds(v.Intent.MemoryBytes, p.Rate)
	p.Duration = seconds(v.DiskBytes(), p.Rate) + p.Downtime
	p.Options.Patience = patientWith(p.Options.Patience, p.Downtime)
}

// explainWarm notes what of a warm migration a person should know before.
func explainWarm(p *Plan, memory int64) {
	note := func(format string, args ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, args...)) }
	note("the first round copies up to %s of disks while it runs; how many follow, and how much, is what its guest writes meanwhile: one every %s at most",
		unit.FormatBytes(p.Bytes-memory), p.Options.Interval)
	at := "as soon as the last round is expected to take less than " + ShortRound.String()
	switch {
	case !p.Options.CutoverAt.IsZero():
		at = "at " + p.Options.CutoverAt.UTC().Format(time.RFC3339)
	case p.Options.Cutover == Manual:
		at = "when it is told to: novacron vm cutover"
	}
	note("its guest is halted once, %s, for the last round and all of its memory, and goes on where it was, without a restart", at)
	note("while it is copied nothing else can be done with it, but to cancel that")
	if p.Downtime > p.Options.Patience {
		note("the halt is expected to be longer than the patience, %s: it would be given up; give it more patience", p.Options.Patience)
	}
}
