package hypertest

import (
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func endCases() []testCase {
	return []testCase{
		{"Shutdown ends a polite guest", shutsDown},
		{"Shutdown of a paused guest works once it is resumed", shutdownPaused},
		{"Shutdown may be ignored, Kill may not", shutdownIgnored},
		{"Kill ends the process, twice and for nothing", kills},
		{"A guest that powers itself off has exited", powersOff},
		{"A process killed from outside has crashed", crashes},
		{"An ended machine refuses what needs a process", endedRefuses},
	}
}

// mayShutdown skips where the guest cannot be asked, and asserts the refusal.
func (b *bench) mayShutdown(r contract.Ref) {
	b.Helper()
	if !b.Driver().Capabilities().Shutdown {
		b.wantCode(b.Driver().Shutdown(b.ctx, r), errs.Unsupported, "shutdown")
		b.Skip("no shutdown")
	}
}

func (b *bench) shutdown(r contract.Ref) {
	b.Helper()
	if err := b.Driver().Shutdown(b.ctx, r); err != nil {
		b.Fatalf("shutdown: %v", err)
	}
}

func shutsDown(b *bench) {
	m := b.launch(Polite)
	b.mayShutdown(m.Ref)
	b.ready(m.VM)
	b.shutdown(m.Ref)
	b.await(m.Ref, vm.PhaseStopping)
	s := b.await(m.Ref, vm.PhaseExited)
	if s.Reason == "" || s.PID != 0 {
		b.Fatalf("a shut down guest is %+v, want a reason and no process", s)
	}
	b.shutdown(m.Ref)
	if got := b.inspect(m.VM); got.Phase != vm.PhaseExited {
		b.Fatalf("inspect says %+v", got)
	}
	b.clean(m)
}

func shutdownPaused(b *bench) {
	m := b.launch(Polite)
	b.mayShutdown(m.Ref)
	if !b.Driver().Capabilities().Pause {
		b.Skip("no pause; its refusal is asserted elsewhere")
	}
	b.ready(m.VM)
	if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	b.shutdown(m.Ref)
	if s := b.inspect(m.VM); s.Phase != vm.PhasePaused {
		b.Fatalf("a paused guest cannot act on its button, but is %+v", s)
	}
	if _, err := b.Driver().Resume(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	b.await(m.Ref, vm.PhaseExited)
	b.clean(m)
}

func shutdownIgnored(b *bench) {
	m := b.launch(Deaf)
	b.mayShutdown(m.Ref)
	b.ready(m.VM)
	for range 2 {
		b.shutdown(m.Ref)
		b.await(m.Ref, vm.PhaseStopping)
		if s := b.inspect(m.VM); s.Phase != vm.PhaseStopping {
			b.Fatalf("a deaf guest is %+v, want stopping", s)
		}
	}
	if s := b.kill(m.Ref); s.Phase != vm.PhaseExited || s.Reason == "" {
		b.Fatalf("kill gave %+v, want exited with a reason", s)
	}
	b.clean(m)
}

func kills(b *bench) {
	m := b.launch(Polite)
	s := b.kill(m.Ref)
	if s.Phase != vm.PhaseExited || s.Reason == "" || s.Ref != m.Ref {
		b.Fatalf("kill gave %+v, want exited with a reason", s)
	}
	b.await(m.Ref, vm.PhaseExited)
	if again := b.kill(m.Ref); again.Phase != vm.PhaseExited {
		b.Fatalf("the second kill gave %+v", again)
	}
	b.kill(contract.Ref{VM: id.New(), Epoch: 1})
	b.clean(m)
}

func powersOff(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	b.PowerOffGuest(b.T, m.VM)
	s := b.await(m.Ref, vm.PhaseExited)
	if s.Reason == "" {
		b.Fatalf("no reason in %+v", s)
	}
	b.clean(m)
}

func crashes(b *bench) {
	m := b.launch(Polite)
	b.CrashGuest(b.T, m.VM)
	s := b.await(m.Ref, vm.PhaseCrashed)
	if s.Reason == "" || s.PID != 0 {
		b.Fatalf("a crashed machine is %+v, want a reason and no process", s)
	}
	if got := b.inspect(m.VM); got.Phase != vm.PhaseCrashed || got.Reason != s.Reason {
		b.Fatalf("inspect says %+v, the sink saw %+v", got, s)
	}
	if k := b.kill(m.Ref); k.Phase != vm.PhaseCrashed {
		b.Fatalf("killing a crashed machine gave %+v", k)
	}
	b.clean(m)
}

func endedRefuses(b *bench) {
	m := b.launch(Polite)
	b.kill(m.Ref)
	calls := b.everyCall(m.Ref)
	if err := calls["shutdown"]; err != nil && b.Driver().Capabilities().Shutdown {
		b.Fatalf("shutdown of an ended machine: %v, want success", err)
	}
	delete(calls, "shutdown")
	for name, err := range calls {
		if errs.Is(err, errs.Unsupported) {
			continue
		}
		b.wantCode(err, errs.InvalidState, name)
	}
	b.clean(m)
}
