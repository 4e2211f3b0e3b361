package qemu

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func testDriver(t *testing.T, accel string) *Driver {
	t.Helper()
	dir := hypertest.ShortDir(t)
	d, err := New(Options{
		NodeShort: "0123abcd", Accel: accel, DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"),
		RAMDir: filepath.Join(dir, "ram"), UIDDir: filepath.Join(dir, "uids"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// The proof succeeds where guests execute: TCG always does.
func TestProofGuestEnds(t *testing.T) {
	if err := testDriver(t, "tcg").boot(bounded(t), "tcg", 50*time.Second); err != nil {
		t.Fatal(err)
	}
}

// The proof fails, and says how far it came, where they do not: here because time
// runs out at once.
func TestProofThatDoesNotEndFails(t *testing.T) {
	d := testDriver(t, "tcg")
	fake := clock.NewFake()
	d.opt.Clock = fake
	ended := make(chan error, 1)
	go func() { ended <- d.boot(bounded(t), "tcg", time.Second) }()
	if err := fake.Waiters(bounded(t), 1); err != nil {
		t.Fatal(err)
	}
	fake.Advance(time.Second)
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "did not end within 1s, having reached") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(d.opt.DataDir, "proof.img")); err == nil {
		t.Error("the proof left its image")
	}
}

func TestProofReached(t *testing.T) {
	for said, want := range map[string]string{"": "nothing", "RIP": "protected mode", "RIPpLlC": "copying memory"} {
		if got := reached([]byte(said)); got != want {
			t.Errorf("%q reached %q, want %q", said, got, want)
		}
	}
}

// What Describe says of this very host holds: a guest boots under what it names,
// and the answer is kept, so that the next agent gives it at once.
func TestAccelerationIsProvedAndKept(t *testing.T) {
	d := testDriver(t, "")
	first, err := d.Describe(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	a := first.Acceleration
	t.Logf("this host: %+v", first)
	if a.Kind == "kvm" && a.Reason != "" || a.Kind == "tcg" && a.Reason == "" || a.Kind != "kvm" && a.Kind != "tcg" {
		t.Fatalf("described as %+v", a)
	}
	if err := d.boot(bounded(t), a.Kind, 30*time.Second); err != nil {
		t.Fatalf("a guest does not boot under %s: %v", a.Kind, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := New(d.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	over, cancel := context.WithCancel(t.Context())
	cancel() // nothing can be executed with this
	kept := func() error { _, err := next.examine(over, hostKey{}); return err }
	if err := kept(); !errs.Is(err, errs.HostFailure) {
		t.Fatalf("an examination with an ended context: %v", err)
	}
	for range 8 { // describe picks between an ended context and a free turn at random
		if again, err := next.Describe(over); err == nil {
			if diff := cmp.Diff(first, again); diff != "" {
				t.Fatalf("kept otherwise:\n%s", diff)
			}
			return
		}
	}
	t.Fatal("the answer was not kept")
}
