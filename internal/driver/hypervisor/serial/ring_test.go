package serial_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
)

// Whatever is written in whatever pieces, a reader that comes at any offset gets
// a suffix of the stream that starts no earlier than asked and holds at least
// the promised bytes.
func TestRingGivesTheNewestBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.IntRange(1, 64).Draw(t, "keep")
		r := serial.NewRing(keep)
		var all strings.Builder
		for _, piece := range rapid.SliceOf(rapid.StringN(0, 40, 80)).Draw(t, "pieces") {
			all.WriteString(piece)
			if _, err := r.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		from := rapid.Int64Range(0, int64(all.Len())+3).Draw(t, "from")
		got, err := io.ReadAll(r.Reader(context.Background(), from, false))
		if err != nil {
			t.Fatal(err)
		}
		want := all.String()[min(from, int64(all.Len())):]
		if !strings.HasSuffix(want, string(got)) {
			t.Fatalf("from %d: got %q, not a suffix of %q", from, got, want)
		}
		if len(got) < min(len(want), keep) {
			t.Fatalf("from %d: got %d bytes, keep %d of %d", from, len(got), keep, len(want))
		}
	})
}

func TestRingFollowsUntilClosed(t *testing.T) {
	r := serial.NewRing(16)
	rd := r.Reader(context.Background(), 0, true)
	done := make(chan string)
	go func() {
		b, _ := io.ReadAll(rd)
		done <- string(b)
	}()
	for _, s := range []string{"a", "b", "c"} {
		if _, err := r.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	_ = r.Close()
	if got := <-done; got != "abc" {
		t.Fatalf("followed %q, want %q", got, "abc")
	}
	if _, err := r.Write([]byte("late")); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("write after close: %v", err)
	}
}

func TestRingReaderEndsWithItsContextAndOnClose(t *testing.T) {
	r := serial.NewRing(16)
	ctx, cancel := context.WithCancel(context.Background())
	byCtx, byClose := r.Reader(ctx, 0, true), r.Reader(context.Background(), 0, true)
	errs := make(chan error, 2)
	for _, rd := range []io.Reader{byCtx, byClose} {
		go func() {
			_, err := rd.Read(make([]byte, 1))
			errs <- err
		}()
	}
	cancel()
	_ = byClose.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, io.EOF) {
			t.Fatalf("read ended with %v, want io.EOF", err)
		}
	}
}
