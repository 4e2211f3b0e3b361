package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// How soon an instance that has run before is ready, and what memory an agent takes.
func BenchmarkUp(b *testing.B) {
	i := up(b, "--accel", "tcg")
	var took []time.Duration
	drift := steadily(b, func() {
		took = nil
		for range 7 {
			i.must("down")
			at := clock.System{}.Boot()
			i.start()
			took = append(took, clock.System{}.Boot()-at)
		}
	})
	s := spreadOf(millis(took))
	record(b, figure{
		Name: "up: ready", What: "'up --detach' of an instance that has run before, until its node reports", Unit: "ms",
		Ours: s, Value: s.P50, Goal: "p50 under 5000 ms", Met: s.P50 < 5000, Drift: drift,
	})
}

// What anonymous memory a real agent takes, alone and with VMs that run.
func BenchmarkAgentMemory(b *testing.B) {
	const vms = 8
	i := up(b, "--accel", "tcg")
	i.importTiny()
	alone := i.memoryOf(b, "node-1")
	for k := range vms {
		i.must("vm", "create", vmName(k), "--image", "tiny", "--cpus", "1", "--memory", "128MiB", "--start", "--wait")
	}
	for k := range vms {
		i.logged(vmName(k), ready)
	}
	full := i.memoryOf(b, "node-1")
	const base, each = 40.0, 0.15
	limit := base + each*vms
	record(b, figure{
		Name: "agent's memory", What: fmt.Sprintf("anonymous memory (RssAnon) of an agent with %d VMs; the floor is that of one without", vms), Unit: "MB",
		Ours: spreadOf([]float64{full}), Floor: &spread{P50: alone, N: 1}, Value: full, Goal: fmt.Sprintf("under %.1f MB: 40 and 0.15 per VM", limit), Met: full < limit,
	})
}

// memoryOf is a child's RssAnon in MB, once it has had nothing to do for a while.
func (i *instance) memoryOf(b *testing.B, child string) float64 {
	b.Helper()
	_ = clock.System{}.Sleep(b.Context(), 5*time.Second)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.state().Children[child].PID))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "RssAnon:")
	var kb int
	if _, err := fmt.Sscan(rest, &kb); err != nil || !found {
		b.Fatalf("no RssAnon of %s: %v", child, err)
	}
	return float64(kb) * 1024 / 1e6
}
