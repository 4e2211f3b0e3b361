package migration

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// memory is a guest's on its way, as hypervisors send it: all, and then what has changed,
// again and again, until the rest fits.
type memory struct {
	bytes, hot, rate, dirty, fits float64
}

// send gives what is seen every so often, until it comes to its end or the time is over.
func (m memory) send(every, most time.Duration, see func(Sample) bool) (ended bool) {
	left, moved, changed, round := m.bytes, 0.0, 0.0, int64(1)
	const step = 10 * time.Millisecond
	for at := time.Duration(0); at < most; at += step {
		if at%every == 0 && !see(Sample{At: at, Round: round, Moved: int64(moved), Remaining: int64(left)}) {
			return false
		}
		sent := min(m.rate*step.Seconds(), left)
		left, moved = left-sent, moved+sent
		changed = min(changed+m.dirty*step.Seconds(), m.hot)
		if left > m.fits {
			continue
		}
		if left+changed <= m.fits {
			return true
		}
		left, changed, round = left+changed, 0, round+1
	}
	return false
}

// What comes nearer to its end is never said to stall; what does not is, in a few windows
// or rounds; and what does not flow is, once the window has passed.
func TestStalls(t *testing.T) {
	const window = 10 * time.Second
	rapid.Check(t, func(t *rapid.T) {
		m := memory{
			bytes: float64(rapid.Int64Range(16*unit.MiB, 8*unit.GiB).Draw(t, "bytes")),
			rate:  float64(rapid.Int64Range(unit.MiB, unit.GiB).Draw(t, "rate")),
		}
		m.bytes = min(m.bytes, 60*m.rate) // nobody waits an hour for a test
		m.fits = m.rate * 0.3
		m.hot = m.bytes
		every := time.Duration(rapid.IntRange(1, 50).Draw(t, "every")) * 10 * time.Millisecond
		share := rapid.Float64Range(0, 0.85).Draw(t, "share")
		watched := func(of memory, most time.Duration) (why Stall, after time.Duration, ended bool) {
			var w Watch
			ended = of.send(every, most, func(s Sample) bool {
				w.Add(s)
				why, after = w.Stalled(window), s.At
				return why == NotStalled
			})
			return why, after, ended
		}
		converges := m
		converges.dirty = share * m.rate
		if why, after, ended := watched(converges, time.Hour); why != NotStalled || !ended {
			t.Fatalf("%+v is %q after %v", converges, why, after)
		}
		diverges := m
		diverges.dirty = m.rate * rapid.Float64Range(1, 20).Draw(t, "times")
		round := time.Duration(m.bytes / m.rate * float64(time.Second))
		if m.hot > 2*m.fits {
			if why, after, _ := watched(diverges, 4*window+5*round); why != Outrun {
				t.Fatalf("%+v is %q after %v, a round takes %v", diverges, why, after, round)
			}
		}
		still := m
		still.rate, still.fits = 0, 0
		why, after, _ := watched(still, 2*window)
		if why != Silent || after < window || after > window+every {
			t.Fatalf("%+v is %q after %v", still, why, after)
		}
	})
}

func TestStalled(t *testing.T) {
	const s = time.Second
	// rounds of 4 s each, seen at their beginning and at their end
	rounds := func(sizes ...int64) (seen []Sample) {
		moved := int64(0)
		for i, n := range sizes {
			at := time.Duration(i) * 4 * s
			seen = append(seen, Sample{at, int64(i) + 1, moved, n}, Sample{at + 3*s, int64(i) + 1, moved + n, n / 10})
			moved += n
		}
		return seen
	}
	for name, c := range map[string]struct {
		seen []Sample
		want Stall
	}{
		"Nothing":          {},
		"One":              {seen: []Sample{{Remaining: 5}}},
		"FirstRoundOnly":   {seen: []Sample{{0, 1, 0, 100}, {100 * s, 1, 10, 90}}},
		"Falls":            {seen: rounds(1000, 500, 250, 125, 62)},
		"FallsALittle":     {seen: rounds(1000, 900, 810, 729, 656)},
		"Same":             {seen: rounds(1000, 500, 500, 500, 500, 500), want: Outrun},
		"FallsToTheHotSet": {seen: rounds(1000, 100, 100, 100, 100, 100), want: Outrun},
		"AlmostTheSame":    {seen: rounds(1000, 500, 495, 490, 486, 480), want: Outrun},
		"Rises":            {seen: rounds(1000, 100, 200, 300, 400, 500), want: Outrun},
		"TooSoonToTell":    {seen: rounds(1000, 1000)},
		"Silent":           {seen: []Sample{{0, 1, 7, 90}, {5 * s, 1, 7, 90}, {10 * s, 1, 7, 90}}, want: Silent},
		"SilentNotLong":    {seen: []Sample{{0, 1, 6, 91}, {1 * s, 1, 7, 90}, {10 * s, 1, 7, 90}}},
		"SilentAndDone":    {seen: []Sample{{0, 1, 7, 0}, {10 * s, 1, 7, 0}}},
		"SilentGoesOn":     {seen: []Sample{{0, 1, 7, 90}, {10 * s, 1, 8, 89}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Stalled(c.seen, 10*s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// However long it takes, what is remembered is bounded.
func TestWatchIsBounded(t *testing.T) {
	var w Watch
	for i := range int64(10 * maxSeen) {
		w.Add(Sample{At: time.Duration(i) * time.Millisecond, Round: i, Moved: i, Remaining: 5})
	}
	if len(w.seen) > maxSeen || w.Stalled(100*time.Millisecond) != Outrun {
		t.Errorf("%d samples, %q", len(w.seen), w.Stalled(100*time.Millisecond))
	}
	w.Forget()
	if w.Stalled(0) != NotStalled {
		t.Error("what was forgotten counts")
	}
}

func TestStepsAreChecked(t *testing.T) {
	for s, valid := range map[Steps]bool{
		"": true, "throttle": true, "downtime": true, "give_up": true, "wait": true, "throttle,downtime": true, "downtime,throttle": true, "throttle,downtime,give_up": true,
		"give_up,throttle": false, "throttle,throttle": false, "wait,throttle": false, "throttle,wait": false, "post_copy": false, ",": false, "throttle,": false,
	} {
		if s.Valid() != valid {
			t.Errorf("%q is valid: %v", s, !valid)
		}
	}
	if StepsOf([]string{""}).Valid() || StepsOf(nil) != "" || StepsOf([]string{"throttle", "give_up"}) != "throttle,give_up" {
		t.Error("names are joined wrongly")
	}
}

// Each step is taken for as long as it has something to add, in the order that was asked
// for; and nothing but giving up answers silence.
func TestAnswers(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		steps Steps
		why   Stall
		now   Means
		want  []Means // one after the other
		last  Step
	}{
		"ByDefault":     {steps: DefaultSteps, why: Outrun, now: Means{0, 300 * ms}, want: []Means{{40, 300 * ms}, {70, 300 * ms}, {90, 300 * ms}, {99, 300 * ms}, {99, 600 * ms}, {99, time.Second}}, last: Wait},
		"DowntimeFirst": {steps: "downtime,throttle,give_up", why: Outrun, now: Means{95, 900 * ms}, want: []Means{{95, time.Second}, {99, time.Second}}, last: GiveUp},
		"Slowed":        {steps: "throttle", why: Outrun, now: Means{75, 300 * ms}, want: []Means{{90, 300 * ms}, {99, 300 * ms}}, last: Wait},
		"LongAlready":   {steps: "downtime", why: Outrun, now: Means{0, 2 * time.Second}, last: Wait},
		"GiveUpAtOnce":  {steps: "give_up", why: Outrun, now: Means{0, 300 * ms}, last: GiveUp},
		"Wait":          {steps: "wait", why: Outrun, now: Means{0, 300 * ms}, last: Wait},
		"None":          {why: Outrun, now: Means{0, 300 * ms}, last: Wait},
		"Silent":        {steps: DefaultSteps, why: Silent, now: Means{0, 300 * ms}, last: Wait},
		"SilentGivesUp": {steps: "throttle,downtime,give_up", why: Silent, now: Means{0, 300 * ms}, last: GiveUp},
	} {
		t.Run(name, func(t *testing.T) {
			now := c.now
			for _, want := range c.want {
				step, next := c.steps.Answer(c.why, now, time.Second)
				if next != want || step == Wait || step == GiveUp {
					t.Fatalf("after %+v comes %s, %+v, want %+v", now, step, next, want)
				}
				now = next
			}
			if step, next := c.steps.Answer(c.why, now, time.Second); step != c.last || next != now {
				t.Errorf("at the end comes %s, %+v, want %s", step, next, c.last)
			}
		})
	}
}
