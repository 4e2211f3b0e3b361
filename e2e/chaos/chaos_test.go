package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// kase is a case: a fault at a point.
type kase struct {
	at    point
	fault fault
}

func (k kase) String() string { return string(k.at) + "/" + k.fault.name }

func caseNamed(t testing.TB, name string) kase {
	t.Helper()
	at, what, _ := strings.Cut(name, "/")
	k := slices.IndexFunc(faults, func(f fault) bool { return f.name == what })
	if k < 0 || !slices.Contains(points, point(at)) {
		t.Fatalf("there is no case %q: points are %v", name, points)
	}
	return kase{point(at), faults[k]}
}

// matrixPoints are those of the matrix: one in each of a migration's parts, and each side
// of each thing that becomes durable.
var matrixPoints = []point{atReceived, atDisks, atMemory, atSwitchover, atSent, atArrived, atSwap, atCommitted, atGranted, atEnding}

// everywhere are faults that come at each of the matrix' points: what ends the process that
// the guest is in, the cancel, and the database that goes. Each other comes at three or four of ten,
// the next one at others, so that each point has all kinds.
var everywhere = []string{"kill-source-node", "kill-target-node", "kill-source", "kill-target", "cancel", "database-gone"}

// matrix is all its cases, in order.
func matrix() (all []kase) {
	for k, f := range faults[1:] {
		for i, p := range matrixPoints {
			if slices.Contains(everywhere, f.name) || (i+k)%3 == 0 {
				all = append(all, kase{p, f})
			}
		}
	}
	return all
}

// Environment of these tests.
const (
	caseEnv    = "NOVACRON_CHAOS_CASE"    // cases parted by commas
	roundsEnv  = "NOVACRON_CHAOS_ROUNDS"  // how often the matrix
	randomEnv  = "NOVACRON_CHAOS_RANDOM"  // how many cases at random
	seedEnv    = "NOVACRON_CHAOS_SEED"    // of what is drawn
	minutesEnv = "NOVACRON_CHAOS_MINUTES" // after which no case is begun
)

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// apart leaves a test out where the race detector runs.
func apart(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("the race detector sees nothing of the processes that this starts: make test runs it")
	}
}

// Faults come at exact points of migrations of a real guest, and it is one, and goes on,
// with all that it has written. By itself this is a few cases; `make chaos` does them all.
func TestMigrationsUnderFire(t *testing.T) {
	apart(t)
	seed := uint64(number(seedEnv, 1))
	rng := rand.New(rand.NewPCG(seed, 0))
	cases := draw(t, rng)
	limit := time.Duration(number(minutesEnv, 60)) * time.Minute
	t.Logf("%d cases, seed %d", len(cases), seed)
	b := openBench(t, "")
	began := clock.System{}.Boot()
	for k, c := range cases {
		if now := (clock.System{}).Boot() - began; now > limit {
			t.Logf("after %d of %d cases, the time is over", k, len(cases))
			return
		}
		if !b.runs(t.Context(), t, c, k) {
			return
		}
	}
	t.Logf("%d cases in %.0f s", len(cases), ((clock.System{}).Boot() - began).Seconds())
}

// draw gives the cases that are asked for.
func draw(t testing.TB, rng *rand.Rand) (cases []kase) {
	if names := os.Getenv(caseEnv); names != "" {
		for name := range strings.SplitSeq(names, ",") {
			cases = append(cases, caseNamed(t, name))
		}
		return cases
	}
	for range number(roundsEnv, 0) {
		round := matrix()
		rng.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		cases = append(cases, round...)
	}
	for range number(randomEnv, 4) {
		cases = append(cases, kase{points[rng.IntN(len(points))], faults[rng.IntN(len(faults))]})
	}
	return cases
}

// runs runs a case, tells what was wrong, and whether the bench is of use still.
func (b *bench) runs(ctx context.Context, t *testing.T, c kase, k int) bool {
	began := clock.System{}.Boot()
	err := b.try(ctx, c.at, c.fault, k)
	took := (clock.System{}.Boot() - began).Seconds()
	if err == nil {
		t.Logf("%3d %s: %.1f s, the guest was silent for %.2f s", k, c, took, b.witness.heard().longest.Seconds())
		return true
	}
	t.Errorf("%3d %s: %.1f s: %v (again: %s=%s)", k, c, took, err, caseEnv, c)
	return b.recovers()
}

// A guest goes around three nodes with its disk, whose networks are apart but for links,
// while it writes, holds a connection and answers pings: nothing is lost.
func TestGoesAround(t *testing.T) {
	apart(t)
	b := openBench(t, "")
	moves := number("NOVACRON_CHAOS_MOVES", 3)
	pings := ping(t, b.net.listener(), b.net.guest())
	var silences []time.Duration
	for k := range moves {
		if err := b.try(t.Context(), atMemory, faults[0], k/nodes); err != nil {
			t.Fatalf("move %d: %v", k+1, err)
		}
		silences = append(silences, b.witness.heard().longest)
	}
	sent, heard := pings.end()
	slices.Sort(silences)
	t.Logf("%d moves, %d numbers, %d of %d pings answered; the longest silence in each, by the witness: p50 %v, p99 %v, longest %v",
		moves, b.witness.heard().last, heard, sent, silences[len(silences)/2], silences[len(silences)*99/100], silences[len(silences)-1])
	// each move may cost those that come while the guest is halted
	if lost := sent - heard; lost > 20*moves {
		t.Errorf("%d of %d pings were not answered", lost, sent)
	}
}

// planted are the mistakes in the commit rule, each with a case in which it must be found.
var planted = map[mistake]string{
	executesEarly: "swap/database-gone",
	sourceGoesOn:  "memory/none",
	targetLives:   "swap/database-gone",
	sourceDecides: "swap/database-blinks",
}

// An agent with a mistake in one of the four steps of the commit rule is found out.
func TestPlantedMistakesAreFound(t *testing.T) {
	apart(t)
	if os.Getenv(roundsEnv) == "" {
		t.Skip("it takes minutes: make chaos-slice and make chaos run it")
	}
	for m, name := range planted {
		t.Run(string(m), func(t *testing.T) {
			b := openBench(t, m)
			c := caseNamed(t, name)
			err := b.try(t.Context(), c.at, c.fault, 0)
			// by what the guest tells, and not because the bench fell over it
			if !errors.Is(err, errWrong) {
				t.Fatalf("%s was not found by %s: %v", m, name, err)
			}
			t.Log(fmt.Errorf("found: %w", err))
		})
	}
}
