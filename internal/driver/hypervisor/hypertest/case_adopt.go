package hypertest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func adoptCases() []testCase {
	return []testCase{
		{"Adopt on an empty host finds nothing", adoptsNothing},
		{"Adopt finds a running guest and goes on with it", adoptsRunning},
		{"Adopt finds a paused guest", adoptsPaused},
		{"Adopt finds a guest that ignored a shutdown running", adoptsIgnored},
		{"Adopt tells how guests ended while nobody looked", adoptsEnded},
		{"Adopt still knows how a kill ended", adoptsKilled},
		{"Adopt finds many", adoptsMany},
		{"A closed driver is silent and closes twice", closes},
	}
}

func adoptsNothing(b *bench) {
	if got := b.adopt(); len(got) != 0 {
		b.Fatalf("found %+v", got)
	}
}

func adoptsRunning(b *bench) {
	m := b.Machine(b.T, Polite)
	before := b.start(m)
	b.ready(m.VM)
	got := b.adoptOne(m.VM, nil)
	if got.PID != before.PID || got.Ref != before.Ref || got.Phase != vm.PhaseRunning {
		b.Fatalf("adopted:\n%s", cmp.Diff(before, got))
	}
	if again := b.start(m); again.PID != before.PID {
		b.Fatalf("launch after adopt gave process %d, want %d", again.PID, before.PID)
	}
	_, err := b.Driver().Launch(b.ctx, at(m, m.Epoch+1))
	b.wantCode(err, errs.InvalidState, "launch of a higher epoch beside an adopted one")
	b.CrashGuest(b.T, m.VM)
	b.await(m.Ref, vm.PhaseCrashed)
	b.clean(m)
}

func adoptsPaused(b *bench) {
	m := b.launch(Polite)
	if !b.Driver().Capabilities().Pause {
		b.Skip("no pause; its refusal is asserted elsewhere")
	}
	if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	if got := b.adoptOne(m.VM, nil); got.Phase != vm.PhasePaused {
		b.Fatalf("adopted %+v, want paused", got)
	}
	if s, err := b.Driver().Resume(b.ctx, m.Ref); err != nil || s.Phase != vm.PhaseRunning {
		b.Fatalf("resume gave %+v, %v", s, err)
	}
	b.clean(m)
}

// What an earlier driver asked is over: the guest is what it does, and can be
// asked again.
func adoptsIgnored(b *bench) {
	m := b.launch(Deaf)
	b.mayShutdown(m.Ref)
	b.ready(m.VM)
	b.shutdown(m.Ref)
	b.await(m.Ref, vm.PhaseStopping)
	if got := b.adoptOne(m.VM, nil); got.Phase != vm.PhaseRunning {
		b.Fatalf("adopted %+v, want running", got)
	}
	if s := b.inspect(m.VM); s.Phase != vm.PhaseRunning {
		b.Fatalf("after it was adopted, inspect says %+v", s)
	}
	b.shutdown(m.Ref)
	b.await(m.Ref, vm.PhaseStopping)
	b.clean(m)
}

func adoptsEnded(b *bench) {
	for _, c := range []struct {
		name string
		end  func(*testing.T, contract.Machine)
		want vm.Phase
	}{
		{"power-off", func(t *testing.T, m contract.Machine) { b.PowerOffGuest(t, m.VM) }, vm.PhaseExited},
		{"crash", func(t *testing.T, m contract.Machine) { b.CrashGuest(t, m.VM) }, vm.PhaseCrashed},
	} {
		m := b.launch(Polite)
		b.ready(m.VM)
		got := b.adoptOne(m.VM, func() { c.end(b.T, m) })
		if got.Phase.OnNode() { // the end was asked for, and may still be under way
			got = b.rec.Await(b.T, m.VM, "the end", func(s contract.Status) bool { return !s.Phase.OnNode() })
		}
		if got.Phase != c.want || got.Reason == "" || got.PID != 0 || got.Ref != m.Ref {
			b.Fatalf("after a %s adopt gave %+v, want %s with a reason", c.name, got, c.want)
		}
		b.clean(m)
	}
}

func adoptsKilled(b *bench) {
	m := b.launch(Polite)
	before := b.kill(m.Ref)
	if got := b.adoptOne(m.VM, nil); got.Phase != before.Phase || got.Reason != before.Reason {
		b.Fatalf("adopted:\n%s", cmp.Diff(before, got))
	}
	b.clean(m)
}

func adoptsMany(b *bench) {
	ms := []contract.Machine{b.launch(Polite), b.launch(Polite), b.launch(Deaf)}
	b.kill(ms[1].Ref)
	b.Away(b.T, nil)
	found := map[contract.Ref]vm.Phase{}
	for _, s := range b.adopt() {
		found[s.Ref] = s.Phase
	}
	want := map[contract.Ref]vm.Phase{
		ms[0].Ref: vm.PhaseRunning, ms[1].Ref: vm.PhaseExited, ms[2].Ref: vm.PhaseRunning,
	}
	if !cmp.Equal(found, want) {
		b.Fatalf("adopted:\n%s", cmp.Diff(want, found))
	}
	b.clean(ms...)
}

func closes(b *bench) {
	m := b.launch(Polite)
	old := b.Driver()
	var seen int
	got := b.adoptOne(m.VM, func() {
		seen = len(b.rec.Of(m.VM))
		if err := old.Close(); err != nil {
			b.Fatalf("second close: %v", err)
		}
		if _, err := old.Pause(b.ctx, m.Ref); err == nil {
			b.Fatal("a closed driver still pauses guests")
		}
	})
	if got.Phase != vm.PhaseRunning {
		b.Fatalf("closing the driver left the guest %+v", got)
	}
	if now := b.rec.Of(m.VM); len(now) != seen {
		b.Fatalf("a closed driver told %+v", now[seen:])
	}
	b.clean(m)
}
