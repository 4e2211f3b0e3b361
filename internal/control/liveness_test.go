package control

import (
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// judge is a Liveness fed by hand.
func judge() (*Liveness, *clock.Fake) {
	c := clock.NewFake()
	return NewLiveness(nil, c, nil), c
}

func TestLeaseRunsOut(t *testing.T) {
	l, c := judge()
	n := id.New()
	see := func(seq int64) { l.look(map[id.ID]int64{n: seq}, c.Boot()) }
	see(0)
	if l.Reporting(n) {
		t.Error("a node that never reported, reports")
	}
	for seq := int64(1); seq < 10; seq++ {
		see(seq)
		c.Advance(LeaseTTL / 3)
		if !l.Reporting(n) {
			t.Fatalf("renewal %d: the lease ran out early", seq)
		}
	}
	for range 3 {
		see(9)
		c.Advance(LeaseTTL / 3)
	}
	see(9)
	if l.Reporting(n) {
		t.Error("the lease did not run out")
	}
	see(10)
	if !l.Reporting(n) {
		t.Error("a renewal did not help")
	}
}

// A step of the wall clock changes nothing.
func TestLeaseIgnoresWallClock(t *testing.T) {
	l, c := judge()
	n := id.New()
	l.Heard(n, 1)
	c.StepWall(24 * time.Hour)
	if !l.Reporting(n) {
		t.Error("a wall clock step ended a lease")
	}
	c.StepWall(-48 * time.Hour)
	c.Advance(LeaseTTL + time.Second)
	if l.Reporting(n) {
		t.Error("a wall clock step prolonged a lease")
	}
}

// What looks old after a gap in the reads may only not have been looked at.
func TestGapInReadsSuspendsJudgement(t *testing.T) {
	l, c := judge()
	n := id.New()
	l.look(map[id.ID]int64{n: 5}, c.Boot())
	c.Advance(3 * LeaseTTL) // the database was away
	l.look(map[id.ID]int64{n: 5}, c.Boot())
	if !l.Reporting(n) {
		t.Error("a node was taken for dead because we were blind")
	}
	for range 4 {
		c.Advance(LeaseTTL / 3)
		l.look(map[id.ID]int64{n: 5}, c.Boot())
	}
	if l.Reporting(n) {
		t.Error("it never runs out")
	}
}

func TestRemovedNodeIsForgotten(t *testing.T) {
	l, c := judge()
	n := id.New()
	l.Heard(n, 1)
	l.look(map[id.ID]int64{}, c.Boot())
	if l.Reporting(n) {
		t.Error("a removed node reports")
	}
}

// Silence takes a whole lease of reading without a gap, and no renewal anywhere.
func TestSilenceIsWatched(t *testing.T) {
	l, c := judge()
	n, never := id.New(), id.New()
	watch := func(d time.Duration) {
		for ; d > 0; d -= time.Second {
			c.Advance(time.Second)
			l.look(map[id.ID]int64{n: 5, never: 0}, c.Boot())
		}
	}
	if l.Silent(n, 5) {
		t.Error("before anything was read")
	}
	watch(LeaseTTL)
	if l.Silent(n, 5) || l.Silent(never, 0) {
		t.Error("before a whole lease was watched")
	}
	watch(2 * time.Second)
	if !l.Silent(n, 5) || !l.Silent(never, 0) {
		t.Error("a node that nobody has heard of is not silent")
	}
	if l.Silent(n, 6) {
		t.Error("with a renewal that this server has not seen")
	}
	c.Advance(LeaseTTL)
	if l.Silent(n, 5) {
		t.Error("while the reads stand still")
	}
	watch(LeaseTTL)
	if l.Silent(n, 5) {
		t.Error("after a gap in the reads, before another whole lease")
	}
	watch(2 * time.Second)
	if !l.Silent(n, 5) {
		t.Error("it is never silent again")
	}
	l.Heard(n, 6)
	if l.Silent(n, 5) || l.Silent(n, 6) {
		t.Error("just after a renewal")
	}
}
