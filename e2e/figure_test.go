package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// benchOut names the file that the figures go to as JSON; 'make bench' sets it.
const benchOut = "NOVACRON_BENCH_OUT"

// figure is one measured property of the product, beside what it is held against
// in the same run.
type figure struct {
	Name string `json:"name"`
	// What was measured, in a sentence.
	What string `json:"what"`
	Unit string `json:"unit"`
	// Ours, and the floor: what the machine needs for the bare work; absent where
	// there is none.
	Ours  spread  `json:"ours"`
	Floor *spread `json:"floor,omitempty"`
	// Value is what the goal is about, as Goal tells in words; without one, the figure is
	// there to be looked at.
	Value float64 `json:"value"`
	Goal  string  `json:"goal"`
	Met   bool    `json:"met"`
	// Missing says why the goal cannot be looked at on this machine.
	Missing string `json:"missing,omitempty"`
	// Drift is by how much the floors of the machine had changed when the figure was
	// taken, in percent; over 10 the figure says little.
	Drift float64 `json:"drift_percent"`
}

// spread is how values of one kind lie.
type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Min float64 `json:"min"`
	Max float64 `json:"max"`
	N   int     `json:"n"`
}

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	s := slices.Clone(v)
	slices.Sort(s)
	at := func(q float64) float64 { return s[int(q*float64(len(s)-1)+0.5)] }
	return spread{P50: at(0.5), P99: at(0.99), Min: s[0], Max: s[len(s)-1], N: len(s)}
}

func millis(d []time.Duration) []float64 {
	out := make([]float64, len(d))
	for i, v := range d {
		out[i] = float64(v.Nanoseconds()) / 1e6
	}
	return out
}

func median(v []float64) float64 { return spreadOf(v).P50 }

// figures are what this run has measured.
var figures []figure

// record takes a figure in.
func record(b *testing.B, f figure) {
	b.Helper()
	b.ReportMetric(f.Value, strings.ReplaceAll(f.Unit, " ", "-")+"/value")
	if f.Floor != nil {
		b.ReportMetric(f.Floor.P50, strings.ReplaceAll(f.Unit, " ", "-")+"/floor")
	}
	figures = append(figures, f)
}

// publish writes what was measured: a table for people, JSON for programs.
func publish() error {
	if len(figures) == 0 {
		return nil
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"figure", "ours", "p99", "floor", "value", "goal", "met", "drift"})
	for _, f := range figures {
		floor, goal, met := "", f.Goal, "no"
		if f.Floor != nil {
			floor = fmt.Sprintf("%.3g", f.Floor.P50)
		}
		switch {
		case f.Goal == "":
			met = "" // it is there to be looked at
		case f.Missing != "":
			goal, met = f.Missing, ""
		case f.Met:
			met = "yes"
		}
		t.AppendRow(table.Row{
			f.Name, fmt.Sprintf("%.3g %s", f.Ours.P50, f.Unit), fmt.Sprintf("%.3g", f.Ours.P99), floor,
			fmt.Sprintf("%.3g", f.Value), goal, met, fmt.Sprintf("%.0f %%", f.Drift),
		})
	}
	fmt.Println(t.Render())
	path := os.Getenv(benchOut)
	if path == "" {
		return nil
	}
	doc, err := json.MarshalIndent(struct {
		At      time.Time `json:"at"`
		CPUs    int       `json:"cpus"`
		Figures []figure  `json:"figures"`
	}{time.Now().UTC(), runtime.NumCPU(), figures}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(doc, '\n'), 0o644)
}
