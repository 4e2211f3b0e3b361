package agent

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// duplex is a stream of which what is written is kept.
type duplex struct {
	bytes.Buffer
	ended bool
}

// Close implements io.Closer.
func (d *duplex) Close() error { return nil }

// CloseWrite ends what is written.
func (d *duplex) CloseWrite() error { d.ended = true; return nil }

// while runs f, and lets a millisecond after the other go by until it has returned: how long
// did that take?
func while(t *testing.T, c *clock.Fake, f func()) time.Duration {
	t.Helper()
	began, done := c.Boot(), make(chan struct{})
	go func() { defer close(done); f() }()
	for {
		select {
		case <-done:
			return c.Boot() - began
		default:
			c.Advance(time.Millisecond)
		}
	}
}

// What is sent of a guest keeps to its pace, on all streams together, also when that is
// changed while it is sent; without one it waits for nothing.
func TestPace(t *testing.T) {
	b := newBench(t)
	fake := clock.NewFake()
	g, of := b.agent.guest(b.vm), id.New()
	content := bytes.Repeat([]byte("memory"), 1<<16)
	var got duplex
	send := func() {
		c := g.pace.over(t.Context(), &got)
		if n, err := c.Write(content); err != nil || n != len(content) {
			t.Errorf("%d of %d bytes: %v", n, len(content), err)
		}
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}
	second := func(rate int64) time.Duration {
		return time.Duration(float64(len(content)) / float64(rate) * float64(time.Second))
	}
	near := func(what string, took, want time.Duration) {
		t.Helper()
		// the last piece is paid for by the next; fake time goes on while nobody waits
		if piece := time.Duration(float64(pacePiece) / float64(len(content)) * float64(want)); took < want-2*piece {
			t.Errorf("%s took %v, and is to take about %v", what, took, want)
		}
	}
	g.pace.begin(of, 1<<20, fake)
	near("all", while(t, fake, send), second(1<<20))
	if got.Len() != len(content) || !bytes.Equal(got.Bytes(), content) || !got.ended {
		t.Errorf("%d bytes came of %d, ended %v", got.Len(), len(content), got.ended)
	}
	pace := func(m id.ID, rate int64) {
		t.Helper()
		if _, err := b.agent.paceMove(t.Context(), nil, &nodelink.PaceMove{VM: b.vm, Migration: m, BytesPerSecond: rate}); err != nil {
			t.Fatal(err)
		}
	}
	pace(id.New(), 1)
	near("after another migration was changed", while(t, fake, send), second(1<<20))
	pace(of, 1<<18)
	near("slower", while(t, fake, send), second(1<<18))
	pace(of, 0)
	before := fake.Boot()
	if _, err := (pacedWriter{t.Context(), &g.pace, io.Discard}).Write(content); err != nil || fake.Boot() != before {
		t.Errorf("without a limit: %v, %v", fake.Boot()-before, err)
	}
}
