package cli

import (
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// The figures of a transfer: what came in the last seconds counts, and what was
// sent before a break is no speed.
func TestTransfer(t *testing.T) {
	clk := clock.NewFake()
	m := newTransfer(clk, 100<<20)
	if m.at(40 << 20); m.line() != "40 MiB of 100 MiB" {
		t.Errorf("gone on with: %s", m.line())
	}
	for _, c := range []struct {
		after time.Duration
		sent  int64
		drawn bool
		want  string
	}{
		{100 * time.Millisecond, 41 << 20, false, "41 MiB of 100 MiB"},
		{900 * time.Millisecond, 50 << 20, true, "50 MiB of 100 MiB, 10 MiB/s, 5s left"},
		{2 * time.Second, 90 << 20, true, "90 MiB of 100 MiB, 20 MiB/s, 1s left"},
		{time.Second, 60 << 20, true, "60 MiB of 100 MiB"}, // broken off
		{50 * time.Millisecond, 100 << 20, true, "100 MiB of 100 MiB"},
	} {
		clk.Advance(c.after)
		if drawn := m.at(c.sent); drawn != c.drawn || m.line() != c.want {
			t.Errorf("drawn %v: %s, want %v: %s", drawn, m.line(), c.drawn, c.want)
		}
	}
}
