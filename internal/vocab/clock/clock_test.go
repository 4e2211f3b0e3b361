package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestFakeAdvances(t *testing.T) {
	f := NewFake()
	wall, boot := f.Now(), f.Boot()
	early, stopEarly := f.After(time.Second)
	late, stopLate := f.After(time.Hour)
	defer stopEarly()
	f.Advance(999 * time.Millisecond)
	if len(early) != 0 {
		t.Error("too early")
	}
	f.Advance(time.Millisecond)
	if len(early) != 1 || len(late) != 0 {
		t.Error("not in time")
	}
	if f.Now().Sub(wall) != time.Second || f.Boot()-boot != time.Second {
		t.Errorf("%v %v", f.Now(), f.Boot())
	}
	f.StepWall(-time.Hour)
	if f.Boot()-boot != time.Second || len(late) != 0 {
		t.Error("a step of the wall is time that passed")
	}
	stopLate()
	f.Advance(2 * time.Hour)
	if len(late) != 0 || len(f.waiters) != 0 {
		t.Error("who was stopped still waits")
	}
	if now, free := f.After(0); len(now) != 1 {
		t.Error("no time takes time")
	} else {
		free()
	}
}

func TestFakeSleepersAndWaiters(t *testing.T) {
	f := NewFake()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 3)
	for i := range 3 {
		go func() { done <- f.Sleep(ctx, time.Duration(i+1)*time.Second) }()
	}
	if err := f.Waiters(ctx, 3); err != nil {
		t.Fatal(err)
	}
	f.Advance(3 * time.Second)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	gone, end := context.WithCancel(ctx)
	end()
	if err := f.Sleep(gone, time.Hour); !errors.Is(err, context.Canceled) || len(f.waiters) != 0 {
		t.Errorf("%v, %d wait", err, len(f.waiters))
	}
	if err := f.Waiters(gone, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
		defer cancel()
		calls := 0
		Every(ctx, System{}, 10*time.Second, func(context.Context) { calls++ })
		if calls != 3 {
			t.Errorf("%d calls in 35 s", calls)
		}
	})
}

func TestSystem(t *testing.T) {
	var c System
	if c.Now().Location() != time.UTC || c.Boot() <= 0 {
		t.Errorf("%v %v", c.Now(), c.Boot())
	}
	before := c.Boot()
	if err := c.Sleep(t.Context(), time.Millisecond); err != nil || c.Boot()-before < time.Millisecond {
		t.Errorf("%v, slept %v", err, c.Boot()-before)
	}
}
