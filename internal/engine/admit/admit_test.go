package admit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// A bucket gives its burst at once, then its rate, and says how long to wait.
func TestBucketGivesBurstThenRate(t *testing.T) {
	b := NewBuckets[string](10, 5, 100)
	now := time.Hour
	take := func() (int, time.Duration) {
		for n := 0; ; n++ {
			if wait, ok := b.Take("a", now); !ok {
				return n, wait
			}
		}
	}
	if n, wait := take(); n != 5 || wait != 100*time.Millisecond {
		t.Errorf("gave %d, wait %v", n, wait)
	}
	if _, ok := b.Peek("b", now); !ok {
		t.Error("another key waits")
	}
	if wait, ok := b.Peek("a", now+40*time.Millisecond); ok || wait != 60*time.Millisecond {
		t.Errorf("peek: %v %v", wait, ok)
	}
	now += 250 * time.Millisecond
	if n, wait := take(); n != 2 || wait != 50*time.Millisecond {
		t.Errorf("after a while gave %d, wait %v", n, wait)
	}
	now += time.Hour
	if n, _ := take(); n != 5 {
		t.Errorf("after long gave %d", n)
	}
}

// In no window does a key get more than burst and rate allow, whatever is asked when.
func TestBucketNeverGivesMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, burst := rapid.IntRange(1, 1000).Draw(t, "rate"), rapid.IntRange(1, 50).Draw(t, "burst")
		b := NewBuckets[int](float64(rate), burst, 4)
		now := time.Hour
		var given []time.Duration
		for range rapid.IntRange(1, 300).Draw(t, "asks") {
			now += time.Duration(rapid.IntRange(0, 20_000).Draw(t, "µs")) * time.Microsecond
			b.Take(rapid.IntRange(1, 20).Draw(t, "other"), now) // others, more than have room
			if _, ok := b.Take(0, now); ok {
				given = append(given, now)
			}
		}
		every := time.Second / time.Duration(rate)
		for i := range given {
			for j := i; j < len(given); j++ {
				if most := burst + int((given[j]-given[i])/every); j-i+1 > most {
					t.Fatalf("%d given in %v, at most %d", j-i+1, given[j]-given[i], most)
				}
			}
		}
	})
}

// A million keys take no more memory than there is room for, and none of them makes
// a bucket that was emptied full again.
func TestBucketsAreBounded(t *testing.T) {
	const most = 1000
	b := NewBuckets[int](0.1, 3, most)
	now := time.Hour
	for range 3 {
		b.Take(-1, now)
	}
	for key := range 1_000_000 {
		now += time.Microsecond
		b.Take(key, now)
		if b.Len() > most {
			t.Fatalf("%d buckets", b.Len())
		}
	}
	if _, ok := b.Peek(-1, now); ok {
		t.Error("a flood of others filled an empty bucket")
	}
	if _, ok := b.Take(2_000_000, now); ok {
		t.Error("a key without room gets a bucket of its own")
	}
	now += time.Minute
	if _, ok := b.Take(2_000_000, now); !ok || b.Len() > 1 {
		t.Errorf("%d buckets are kept when all are full again", b.Len())
	}
}

func places(n int) Bounds {
	return Bounds{Places: n, Line: 1000, Waiting: 5000, Patience: time.Minute}
}

// enter takes a place that must be free now.
func enter(t *testing.T, f *Fair[string], key string) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who would have to wait is refused
	leave, err := f.Enter(ctx, key)
	if err != nil {
		t.Fatalf("%s has to wait: %v", key, err)
	}
	return leave
}

func mayEnter(t *testing.T, f *Fair[string], key string) (func(), bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	leave, err := f.Enter(ctx, key)
	return leave, err == nil
}

// One key alone gets two thirds, n of them 2/(2n+1) each, and who comes new never
// waits while there are more places than keys.
func TestSharesOfPlaces(t *testing.T) {
	f := NewFair[string](places(30), clock.NewFake())
	held := map[string]int{}
	fill := func(keys ...string) {
		for again := true; again; {
			again = false
			for _, k := range keys {
				if _, ok := mayEnter(t, f, k); ok {
					held[k]++
					again = true
				}
			}
		}
	}
	fill("a")
	if held["a"] != 20 {
		t.Errorf("alone: %v", held)
	}
	fill("a", "b")
	if held["b"] != 7 { // a is above its share until it leaves some
		t.Errorf("two: %v", held)
	}
	enter(t, f, "c")
	f = NewFair[string](places(30), clock.NewFake())
	clear(held)
	fill("a", "b", "c", "d")
	for k, n := range held {
		if n < 6 || n > 8 {
			t.Errorf("%s has %d of 30", k, n)
		}
	}
	enter(t, f, "e")
}

// One floods and what it does hangs: nobody else waits.
func TestFloodMakesNobodyWait(t *testing.T) {
	f := NewFair[string](places(24), clock.NewFake())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range 3000 {
		wg.Go(func() {
			if _, err := f.Enter(ctx, "flood"); errors.Is(err, ErrFull) {
				refused.Add(1)
			}
		})
	}
	until(t, func() bool { used, waiting := f.Load(); return used == 16 && waiting == 1000 && refused.Load() == 1984 })
	for range 500 {
		leave := enter(t, f, "other")
		enter(t, f, "third")()
		leave()
	}
	cancel()
	wg.Wait()
	if used, waiting := f.Load(); used != 16 || waiting != 0 {
		t.Errorf("%d places, %d wait", used, waiting)
	}
}

// until waits for a state that others bring about.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	deadline, stop := (clock.System{}).After(20 * time.Second)
	defer stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("the state did not come")
		default:
			_ = (clock.System{}).Sleep(t.Context(), time.Millisecond)
		}
	}
}

// Lines take turns: of two floods, one a hundred times the other, each gets the same.
func TestLinesTakeTurns(t *testing.T) {
	f := NewFair[string](places(3), clock.NewFake())
	first := enter(t, f, "x")
	second := enter(t, f, "y")
	third, ok := mayEnter(t, f, "z")
	if !ok {
		t.Fatal("the third place is not given")
	}
	got := make(chan string, 1000)
	next := make(chan struct{})
	var wg sync.WaitGroup
	line := func(key string, n int) {
		for range n {
			wg.Go(func() {
				leave, err := f.Enter(t.Context(), key)
				if err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
				got <- key
				<-next
				leave()
			})
		}
	}
	line("many", 500)
	until(t, func() bool { _, w := f.Load(); return w == 500 })
	line("few", 5)
	until(t, func() bool { _, w := f.Load(); return w == 505 })
	first()
	second()
	third()
	count := map[string]int{}
	for range 15 {
		count[<-got]++
		next <- struct{}{}
	}
	if count["few"] < 4 {
		t.Errorf("of 15 turns %v", count)
	}
	go func() {
		for range got {
		}
	}()
	close(next)
	wg.Wait()
	close(got)
	if used, waiting := f.Load(); used != 0 || waiting != 0 || len(f.keys) != 0 || len(f.lines) != 0 {
		t.Errorf("left over: %d places, %d waiting, %d keys, %d lines", used, waiting, len(f.keys), len(f.lines))
	}
}

// Who waits longer than the patience is refused, and keeps nothing.
func TestPatience(t *testing.T) {
	c := clock.NewFake()
	f := NewFair[string](places(3), c)
	for range 2 {
		enter(t, f, "a")
	}
	failed := make(chan error)
	go func() { _, err := f.Enter(t.Context(), "a"); failed <- err }()
	until(t, func() bool { _, w := f.Load(); return w == 1 })
	for {
		c.Advance(time.Minute)
		select {
		case err := <-failed:
			if !errors.Is(err, ErrLate) {
				t.Errorf("%v", err)
			}
			if used, waiting := f.Load(); used != 2 || waiting != 0 || len(f.lines) != 0 {
				t.Errorf("%d places, %d wait", used, waiting)
			}
			return
		default:
		}
	}
}

// Whatever comes, waits, gives up and leaves: no place is given twice or lost.
func TestPlacesAreKept(t *testing.T) {
	f := NewFair[int](Bounds{Places: 5, Line: 20, Waiting: 50, Patience: time.Minute}, clock.System{})
	var inside, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if i%3 == 0 {
				go cancel()
			}
			defer cancel()
			leave, err := f.Enter(ctx, i%7)
			if err != nil {
				return
			}
			n := inside.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			inside.Add(-1)
			leave()
			leave()
		})
	}
	wg.Wait()
	if used, waiting := f.Load(); used != 0 || waiting != 0 || len(f.keys) != 0 || len(f.lines) != 0 {
		t.Errorf("left over: %d places, %d waiting, %d keys, %d lines", used, waiting, len(f.keys), len(f.lines))
	}
	if most.Load() > 5 || most.Load() == 0 {
		t.Errorf("%d inside at once", most.Load())
	}
}
