package migration

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// No node gives more than it is to, no migration takes more than it is to, and none gets less
// than another unless something of its own is used up: the definition of max-min fair.
func TestSharesAreFair(t *testing.T) {
	nodes := []id.ID{id.New(), id.New(), id.New(), id.New(), id.New()}
	rapid.Check(t, func(t *rapid.T) {
		rates := map[id.ID]int64{}
		for _, n := range nodes {
			rates[n] = rapid.SampledFrom([]int64{0, unit.MiB, 10 * unit.MiB, 1<<30 - 7}).Draw(t, "rate")
		}
		var flows []Flow
		for range rapid.IntRange(0, 20).Draw(t, "flows") {
			from := rapid.IntRange(0, 4).Draw(t, "from")
			to := (from + rapid.IntRange(1, 4).Draw(t, "to")) % 5
			flows = append(flows, Flow{
				ID: id.New(), Source: nodes[from], Target: nodes[to], SourceRate: rates[nodes[from]], TargetRate: rates[nodes[to]],
				Most: rapid.SampledFrom([]int64{0, 0, unit.MiB / 3, 100 * unit.MiB}).Draw(t, "most"),
			})
		}
		shares := Shares(flows)
		used, largest := map[id.ID]int64{}, map[id.ID]int64{}
		for _, f := range flows {
			got, ok := shares[f.ID]
			if ok != f.Limited() || ok && (got < 1 || f.Most > 0 && got > f.Most) {
				t.Fatalf("%+v has %d (%v)", f, got, ok)
			}
			for n := range f.limits() {
				used[n] += got
				largest[n] = max(largest[n], got)
			}
		}
		for n, u := range used {
			if u > rates[n] {
				t.Fatalf("a node gives %d, and is to give %d", u, rates[n])
			}
		}
		for _, f := range flows {
			if !f.Limited() || shares[f.ID] == f.Most {
				continue
			}
			const whole = 100 // what dividing whole bytes may leave over
			held := false
			for n := range f.limits() {
				held = held || used[n] > rates[n]-whole && largest[n] <= shares[f.ID]+whole
			}
			if !held {
				t.Fatalf("%+v has %d, and could have more without taking of who has no more: %v", f, shares[f.ID], shares)
			}
		}
	})
}

// What one migration leaves of a node, because another node of its limits it, goes to the
// others.
func TestSharesLeaveNothing(t *testing.T) {
	a, b, c := id.New(), id.New(), id.New()
	slow, fast, free := id.New(), id.New(), id.New()
	got := Shares([]Flow{
		{ID: slow, Source: a, Target: b, SourceRate: 100, TargetRate: 30},
		{ID: fast, Source: a, Target: c, SourceRate: 100},
		{ID: free, Source: c, Target: id.New()},
	})
	if len(got) != 2 || got[slow] != 30 || got[fast] != 70 {
		t.Errorf("%v", got)
	}
}
