package migration

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/vocab/id"
)

// Whatever comes and goes, no node takes part in more than it is to, none waits that could
// begin, and who comes first begins first where both wait for the same.
func TestTurns(t *testing.T) {
	places := []Place{{id.New(), "a"}, {id.New(), "b"}, {id.New(), "c"}}
	rapid.Check(t, func(t *rapid.T) {
		const most = 2
		var queue []Queued
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				from := rapid.IntRange(0, 2).Draw(t, "from")
				to := (from + rapid.IntRange(1, 2).Draw(t, "to")) % 3
				queue = append(queue, Queued{ID: id.New(), Source: places[from], Target: places[to], MostOut: most, MostIn: most})
			case 1:
				if i := slices.IndexFunc(queue, func(q Queued) bool { return q.Begun }); i >= 0 {
					queue = slices.Delete(queue, i, i+1)
				}
			default:
				begin(t, queue)
			}
		}
		for begin(t, queue) { // until each has looked
		}
		for i, q := range queue {
			if !q.Begun && counted(queue, q.Source, q.Target) {
				t.Fatalf("%d waits, and nobody is in its way: %+v", i, queue)
			}
		}
	})
}

// begin has one of those that wait look; false when none begins.
func begin(t *rapid.T, queue []Queued) bool {
	for _, i := range rand(t, len(queue)) {
		ok, why := Turn(queue, queue[i].ID)
		if ok != (why == "") {
			t.Fatalf("%v %q", ok, why)
		}
		if queue[i].Begun || !ok {
			continue
		}
		if !counted(queue, queue[i].Source, queue[i].Target) {
			t.Fatalf("%d begins, and its nodes are full", i)
		}
		before := turns(queue[:i])
		queue[i].Begun = true
		if after := turns(queue[:i]); !slices.Equal(before, after) {
			t.Fatalf("%d begins in the place of one that waits longer: %v %v", i, before, after)
		}
		return true
	}
	return false
}

// turns tells whose turn it is.
func turns(queue []Queued) (out []bool) {
	for _, q := range queue {
		ok, _ := Turn(queue, q.ID)
		out = append(out, ok)
	}
	return out
}

func rand(t *rapid.T, n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return rapid.Permutation(all).Draw(t, "order")
}

// counted tells whether two nodes have room for one more.
func counted(queue []Queued, source, target Place) bool {
	out, in := 0, 0
	for _, q := range queue {
		if q.Begun && q.Source == source {
			out++
		}
		if q.Begun && q.Target == target {
			in++
		}
	}
	return out < 2 && in < 2
}

func TestTurnSaysWhy(t *testing.T) {
	a, b, c := Place{id.New(), "a"}, Place{id.New(), "b"}, Place{id.New(), "c"}
	q := func(from, to Place, begun bool) Queued {
		return Queued{ID: id.New(), Source: from, Target: to, MostOut: 1, MostIn: 2, Begun: begun}
	}
	queue := []Queued{q(a, b, true), q(a, c, false), q(b, c, false), q(c, b, false)}
	for i, want := range []string{"", "waits for its turn: 1 of 1 migrations from node a", "", ""} {
		if ok, why := Turn(queue, queue[i].ID); ok != (want == "") || why != want {
			t.Errorf("%d: %v %q, want %q", i, ok, why, want)
		}
	}
	queue[3].MostIn = 1
	if ok, why := Turn(queue, queue[3].ID); ok || why != "waits for its turn: 1 of 1 migrations to node b" {
		t.Errorf("%v %q", ok, why)
	}
	if ok, why := Turn(queue, id.New()); !ok || why != "" {
		t.Errorf("one that is not in the queue: %v %q", ok, why)
	}
	// one that cannot begin keeps nobody waiting
	queue = []Queued{q(a, b, false), q(a, c, false)}
	if ok, _ := Turn(queue, queue[1].ID); ok {
		t.Error("it does not wait for the one before it")
	}
	queue[0].Parked = true
	if ok, why := Turn(queue, queue[1].ID); !ok {
		t.Error(why)
	}
}
