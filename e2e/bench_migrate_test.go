package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// inTurns moves by each way once, and then by each once more, backwards.
func inTurns(b *testing.B, ways ...mover) []moved {
	b.Helper()
	out := make([]moved, 2*len(ways))
	for k := range ways {
		out[k] = ways[k].move(b)
	}
	for k := range ways {
		back := len(ways) - 1 - k
		out[len(ways)+back] = ways[back].move(b)
	}
	return out
}

// taken are moves by way, of rounds of inTurns.
func taken(rounds [][]moved, way, ways int) (out []moved) {
	for _, r := range rounds {
		out = append(out, r[way], r[ways+way])
	}
	return out
}

// each gives a property of moves.
func each(all []moved, of func(moved) float64) []float64 {
	out := make([]float64, len(all))
	for k, m := range all {
		out[k] = of(m)
	}
	return out
}

// ratio is the median of the ratios of moves that came one after the other; between the two
// in the middle where they are even, so that few moves favour nobody.
func ratio(ours, floor []float64) float64 {
	out := make([]float64, len(ours))
	for k := range ours {
		out[k] = ours[k] / floor[k]
	}
	slices.Sort(out)
	return (out[(len(out)-1)/2] + out[len(out)/2]) / 2
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Memory of the guest whose throughput is measured, and how much of it is filled, in MiB.
const (
	memoryMiB = 1536
	filledMiB = 1024
)

// rate gives MB per second of what is filled.
func rate(d time.Duration) float64 { return filledMiB << 20 / 1e6 / d.Seconds() }

// How fast the memory of an idle guest moves: by the product, by QEMU driven by hand with
// the same encryption and the best number of channels, and by libvirt's defaults.
func BenchmarkMigrateMemory(b *testing.B) {
	f := openField(b)
	idle := func() *guest { return f.newGuest(20*time.Millisecond, filledMiB) }
	hand := openByHand(b, f, "raw", memoryMiB*unit.MiB, idle())
	o := openOurs(b, f, memoryMiB*unit.MiB, idle())
	ways := []mover{o, hand, goingOn{hand}}
	without := noVirsh()
	if without == "" {
		ways = append(ways, openByVirsh(b, f, memoryMiB*unit.MiB, idle()))
	}
	for _, w := range ways {
		w.move(b) // all that comes once has come: the image of the other node, say
	}
	hand.sweep(b)
	var rounds [][]moved
	drift := once(b, func() {
		for range 2 {
			rounds = append(rounds, inTurns(b, ways...))
		}
	})
	memory := func(way int) []float64 {
		return each(taken(rounds, way, len(ways)), func(m moved) float64 { return rate(m.memory) })
	}
	whole := func(way int) []float64 {
		return each(taken(rounds, way, len(ways)), func(m moved) float64 { return rate(m.whole) })
	}
	recordRatio(b, figure{
		Name: "migration: memory", Unit: "MB/s", Goal: "at least 0.9 of the floor", Drift: drift,
		What: fmt.Sprintf("%d MiB of memory that do not compress, of an idle guest, over TLS; the floor is QEMU driven by hand with TLS and %d channels, the guest halted as ours is", filledMiB, hand.channels),
	}, memory(0), memory(1), func(r float64) bool { return r >= 0.9 })
	recordRatio(b, figure{
		Name: "migration: memory, raw live", Unit: "MB/s", Drift: drift,
		What: "the same; the floor is QEMU driven by hand while the guest goes on, which loses writes by QEMU before 9 without KVM",
	}, memory(0), memory(2), nil)
	against := figure{
		Name: "migration: whole", Unit: "MB/s", Goal: "at least 2 times virsh", Drift: drift,
		What: "the same memory by the time from the request to the job's end; the floor is virsh migrate --live by its defaults, which do not encrypt",
	}
	if without != "" {
		s := spreadOf(whole(0))
		against.Ours, against.Value, against.Missing = s, s.P50, without
		record(b, against)
		return
	}
	recordRatio(b, against, whole(0), whole(3), func(r float64) bool { return r >= 2 })
}

// recordRatio takes in a figure that is about a ratio to its floor. Without a goal it is
// there to be looked at.
func recordRatio(b *testing.B, f figure, ours, floor []float64, met func(float64) bool) {
	b.Helper()
	bare := spreadOf(floor)
	f.Ours, f.Floor, f.Value = spreadOf(ours), &bare, ratio(ours, floor)
	f.Met = met != nil && met(f.Value)
	record(b, f)
}

// goingOn is by hand, with a guest that goes on while its memory is sent.
type goingOn struct{ *byHand }

func (g goingOn) move(b *testing.B) moved {
	b.Helper()
	g.halted = false
	defer func() { g.halted = true }()
	return g.byHand.move(b)
}

// sweep takes the number of channels by which memory goes fastest.
func (h *byHand) sweep(b *testing.B) {
	b.Helper()
	best, least := 0, time.Duration(0)
	for _, channels := range []int{0, 2, 4} {
		h.channels = channels
		took := h.move(b).memory
		b.Logf("%d channels: %.0f MB/s", channels, rate(took))
		if least == 0 || took < least {
			best, least = channels, took
		}
	}
	h.channels = best
}

// For how long an idle guest is silent when it moves, as it is heard from outside, and what
// the control plane adds to what the drivers take.
func BenchmarkMigrateSilence(b *testing.B) {
	const memory, rounds = 128 * unit.MiB, 10
	f := openField(b)
	idle := func() *guest { return f.newGuest(time.Millisecond, 0) }
	hand := openByHand(b, f, "raw", memory, idle())
	o := openOurs(b, f, memory, idle())
	ways := []mover{o, hand, goingOn{hand}}
	for range 2 {
		for _, w := range ways {
			w.move(b)
		}
	}
	var all [][]moved
	drift := once(b, func() {
		for range rounds {
			all = append(all, inTurns(b, ways...))
		}
	})
	silence := func(way int) []float64 {
		return each(taken(all, way, len(ways)), func(m moved) float64 { return inMillis(m.silence) })
	}
	ours, raw, live := silence(0), silence(1), silence(2)
	recordRatio(b, figure{
		Name: "migration: silence", Unit: "ms", Goal: "p50 at most 1.3 times the floor", Drift: drift,
		What: "the longest time between two numbers of a guest that counts each millisecond; the floor is QEMU driven by hand with TLS, the guest halted as ours is",
	}, ours, raw, func(r float64) bool { return r <= 1.3 })
	tail := spread{P50: spreadOf(raw).P99, P99: spreadOf(raw).P99, N: len(raw)}
	worst := spreadOf(ours).P99 / tail.P99
	record(b, figure{
		Name: "migration: silence, p99", Unit: "ms", Goal: "p99 at most 1.5 times the floor's", Drift: drift,
		What: "the same, of the worst moves", Ours: spreadOf(ours), Floor: &tail, Value: worst, Met: worst <= 1.5,
	})
	recordRatio(b, figure{
		Name: "migration: silence, raw live", Unit: "ms", Drift: drift,
		What: "the same; the floor is QEMU driven by hand while the guest goes on, which loses writes by QEMU before 9 without KVM",
	}, ours, live, nil)
	mine := taken(all, 0, len(ways))
	control := spreadOf(each(mine, func(m moved) float64 { return inMillis(m.control) }))
	driver := spreadOf(each(mine, func(m moved) float64 { return inMillis(m.driver) }))
	record(b, figure{
		Name: "migration: control plane", Unit: "ms", Goal: "p50 under 100 ms", Drift: drift,
		What: "of a guest of 128 MiB: the job, from accepted to its end, without what its hypervisor's drivers take, which is the floor",
		Ours: control, Floor: &driver, Value: control.P50, Met: control.P50 < 100,
	})
}
