package e2e

import (
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// floor is one bare ability of the machine that figures stand on.
type floor struct {
	name string
	// once does it once.
	once func(b *testing.B)
	n    int
}

// floors are looked at before and after each figure: one that has changed by more
// than a tenth meanwhile means that somebody else was using the machine.
func floors(b *testing.B) []floor {
	b.Helper()
	block := make([]byte, 16<<20)
	to := make([]byte, len(block))
	f, err := os.CreateTemp(b.TempDir(), "fsync")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	echo := loopback(b)
	return []floor{
		{"copy of 16 MiB", func(*testing.B) { copy(to, block) }, 40},
		{"loopback round trip", func(b *testing.B) {
			var one [1]byte
			if _, err := echo.Write(one[:]); err != nil {
				b.Fatal(err)
			}
			if _, err := echo.Read(one[:]); err != nil {
				b.Fatal(err)
			}
		}, 400},
		{"write and fsync", func(b *testing.B) {
			if _, err := f.WriteAt(block[:4096], 0); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}, 40},
		{"fork and exec", func(b *testing.B) {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}, 40},
	}
}

// loopback is a connection to a peer that gives every byte back.
func loopback(b *testing.B) net.Conn {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "echo"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var one [1]byte
		for {
			if _, err := c.Read(one[:]); err != nil {
				return
			}
			if _, err := c.Write(one[:]); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// calibrate takes the machine's floors, in milliseconds.
func calibrate(b *testing.B, all []floor) []float64 {
	b.Helper()
	out := make([]float64, len(all))
	for i, f := range all {
		var took []time.Duration
		for range f.n {
			at := clock.System{}.Boot()
			f.once(b)
			took = append(took, clock.System{}.Boot()-at)
		}
		out[i] = median(millis(took))
	}
	return out
}

// tries of a figure whose floors drift.
const tries = 3

// steadily measures between two calibrations, again when the machine was not the
// same after as before, and gives the drift of the try that counts, in percent.
func steadily(b *testing.B, measure func()) float64 {
	b.Helper()
	return within(b, tries, measure)
}

// once is steadily for what takes too long to be measured again.
func once(b *testing.B, measure func()) float64 {
	b.Helper()
	return within(b, 1, measure)
}

func within(b *testing.B, tries int, measure func()) float64 {
	b.Helper()
	all := floors(b)
	drift := 0.0
	for range tries {
		before := calibrate(b, all)
		measure()
		after := calibrate(b, all)
		if drift = drifted(before, after); drift <= steady {
			break
		}
	}
	return drift
}

// steady is how much a machine may drift, in percent, for its figures to count.
const steady = 10

// drifted gives by how much the floors changed, in percent, at most.
func drifted(before, after []float64) (drift float64) {
	for i := range before {
		drift = max(drift, 100*math.Abs(after[i]-before[i])/before[i])
	}
	return drift
}
